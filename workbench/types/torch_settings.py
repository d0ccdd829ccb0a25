"""The settings of torch that numbers depend on, for the length of a call, whatever a notebook has left on.

A default dtype or device, inference mode, autocast and gradients that are off belong to the cell that set them. What
the package computes is the same with and without them. Other settings stay the user's: threads, deterministic
algorithms and the precision of matrix products on a GPU are choices about the machine.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch

_AUTOCAST = ("cpu", "cuda", "mps", "xpu")


class _DefaultDtype:
    """The default dtype as float32 while any call runs. It is one for all threads, so calls are counted: the first
    sets it, the last one gives back what was there, unless it was set anew meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._before = torch.float32

    def __enter__(self) -> None:
        with self._lock:
            if self._calls == 0:
                self._before = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self._calls += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._calls -= 1
            if self._calls == 0 and torch.get_default_dtype() == torch.float32:
                torch.set_default_dtype(self._before)


_DTYPE = _DefaultDtype()


@contextmanager
def own_torch_settings() -> Generator[None]:
    """Compute by torch's own defaults in a ``with`` block, or in a function that this decorates: float32 and the CPU
    where a tensor names neither, with gradients, without inference mode and without autocast. What was set is set again
    afterwards.

    Whoever makes a public function decorates it with this, and nothing below it needs to think of it.
    """
    with ExitStack() as settings:
        settings.enter_context(_DTYPE)
        if torch.get_default_device().type != "cpu":
            settings.enter_context(torch.device("cpu"))
        for device in _AUTOCAST:
            if torch.is_autocast_enabled(device):
                settings.enter_context(torch.autocast(device, enabled=False))
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.enable_grad())
        yield
