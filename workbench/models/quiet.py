"""Loading without bars: what lies on this machine is there in seconds, and a finished bar says nothing afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_loading_bars() -> Iterator[None]:
    """Let transformers show no progress in a ``with`` block; what was set before is set again.

    In a notebook each of its bars ("Loading weights: 100%") is a widget that stays above the panel for good.
    """
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
    if shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
