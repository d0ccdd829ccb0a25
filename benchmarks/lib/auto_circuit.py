"""auto-circuit beside our scores of edges: its process, its names of edges, and how far the two are apart."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.lib import auto_circuit_peer
from workbench.types import EdgeMap

PACKAGE = "auto-circuit==1.0.1"
VERSIONS = Path(__file__).with_name("auto_circuit.txt")


class Process:
    """auto-circuit in its own process.

    Args:
        running: The process, whose answers are lines of JSON.
        folder: Where it writes.
    """

    def __init__(self, running: subprocess.Popen[str], folder: Path) -> None:
        self.running, self.folder = running, folder

    def ask(self, command: str | None = None) -> dict[str, Any]:
        """The answer to a command.

        Raises:
            RuntimeError: The process has ended; the message has its last words.
        """
        assert self.running.stdin is not None and self.running.stdout is not None
        try:
            if command is not None:
                print(command, file=self.running.stdin, flush=True)
            line = self.running.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            said = (self.folder / "errors.txt").read_text(encoding="utf-8").strip()[-2000:]
            raise RuntimeError(f"auto-circuit's process ended with {self.running.wait()}:\n{said}")
        return json.loads(line)

    def scores(self) -> dict[str, float]:
        """The scores that it has written, by its names of edges."""
        return json.loads((self.folder / "scores.json").read_text(encoding="utf-8"))


@contextmanager
def started(python: Path, network: Any, setting: Mapping[str, Any]) -> Iterator[Process]:
    """auto-circuit on a GPT-2, ready to be asked; its process ends with the block.

    Args:
        python: Of auto-circuit's environment.
        network: transformers' ``GPT2LMHeadModel``.
        setting: ``clean`` and ``corrupted`` (token ids), ``answer`` and ``wrong`` (a token id each).
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = {name: tensor.contiguous() for name, tensor in network.transformer.state_dict().items()}
        save_file(weights, folder / "weights.safetensors")
        known = network.config
        sizes = ("vocab_size", "n_layer", "n_head", "n_embd", "n_positions", "layer_norm_epsilon")
        config = {name: getattr(known, name) for name in sizes}
        given = {**setting, "config": config, "threads": torch.get_num_threads()}
        (folder / "setting.json").write_text(json.dumps(given), encoding="utf-8")
        command = [
            str(python),
            "-I",
            auto_circuit_peer.__file__,
            str(folder),
        ]  # -I: benchmarks/lib is no place to import
        with (
            (folder / "errors.txt").open("w") as errors,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as running,
        ):
            process = Process(running, folder)
            process.ask()
            yield process  # then its input ends, and with it the process


def ours_of(edge: str) -> tuple[str, str]:
    """Our names of the sender and the receiver of one of auto-circuit's edges.

    Raises:
        ValueError: A name of another form.

    Example:
        >>> ours_of("Resid Start->A2.11.K"), ours_of("MLP 0->Resid End")
        (('embedding', 'L2K11'), ('L0MLP', 'logits'))
    """
    sender, arrow, receiver = edge.partition("->")
    if not arrow:
        raise ValueError(f"An edge of auto-circuit is called 'SENDER->RECEIVER', got {edge!r}.")
    return _node(sender, {"Resid Start": "embedding"}, "H"), _node(receiver, {"Resid End": "logits"}, "QKV")


def _node(name: str, known: dict[str, str], kinds: str) -> str:
    """Our name of one of auto-circuit's nodes: a sender's head has no letter, a receiver's has one of ``kinds``."""
    if name in known:
        return known[name]
    if found := re.fullmatch(r"MLP (\d+)", name):
        return f"L{found[1]}MLP"
    found = re.fullmatch(r"A(\d+)\.(\d+)" if kinds == "H" else rf"A(\d+)\.(\d+)\.([{kinds}])", name)
    if not found:
        raise ValueError(f"{name!r} is none of auto-circuit's names: {[*known]}, 'MLP 3', or a head such as 'A3.4'.")
    return f"L{found[1]}{'H' if kinds == 'H' else found[3]}{found[2]}"


@dataclass(frozen=True)
class Apart:
    """How far two scores of all edges are apart.

    Attributes:
        absolute: The largest difference, in units of the metric.
        relative: The same, in units of the largest score.
    """

    absolute: float
    relative: float


def apart(edges: EdgeMap, theirs: Mapping[str, float]) -> Apart:
    """How far our scores are from auto-circuit's, which are the other way round: its gradient is of minus the metric.

    Args:
        edges: Ours, of all edges.
        theirs: Its scores, by its names.

    Raises:
        ValueError: The two are not of the same edges.
    """
    values = torch.full_like(edges.values, float("nan"))
    senders = {name: i for i, name in enumerate(edges.senders)}
    receivers = {name: i for i, name in enumerate(edges.receivers)}
    for edge, score in theirs.items():
        sender, receiver = ours_of(edge)
        if sender not in senders or receiver not in receivers:
            raise ValueError(f"auto-circuit's edge {edge!r} is not in our graph of {edges.n_edges} edges.")
        values[receivers[receiver], senders[sender]] = -score
    there = ~edges.values.isnan()
    if not torch.equal(there, ~values.isnan()):
        both = int((there & ~values.isnan()).sum())
        raise ValueError(
            f"auto-circuit has scores of {len(theirs)} edges, we of {int(there.sum())}; {both} are the same."
        )
    largest = float(edges.values[there].abs().max())
    difference = float((edges.values - values)[there].abs().max())
    return Apart(difference, difference / largest)
