"""Seconds and memory that notebook 01 takes from top to bottom, and what an edited model beside its base adds.

    python -m benchmarks.quickstart

Memory is the largest resident set of a process of its own. Beside the base: heads and a question are read on the base
twice, and on the base and an edited model, in a process each; what loading needed for a moment is left out (on Linux).
A third process reads the base and a copy of it: the control, which must be seen to need more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

import workbench as wb
from benchmarks.lib.code import code_of
from benchmarks.lib.timing import PEAK

TWICE = """
import copy, sys, torch, workbench as wb
from workbench.types import EditStage, GateDelta
model = wb.load_model()
fact = wb.load_facts()["france-capital"]
gates = {(layer, "post"): torch.full((model.shape.d_mlp,), 0.9) for layer in range(10, model.shape.n_layers)}
edit = wb.Edit(
    stages=(EditStage("learn", GateDelta(gates)),), selection=wb.Selection("L10MLP"), selector="given",
    recipe=wb.Recipe.named("learn-only"), facts=(fact,), retain_ids=(), history=(),
    base_fingerprint=model.fingerprint, base_name=model.name,
)
def read(one):
    wb.attribute(one, fact, "head", progress=False)
    wb.ask(one, fact.question)
read(model)
if sys.platform == "linux":
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # the peak counts from here
if BESIDE == "edited":
    with wb.applied(model, edit) as edited:
        read(edited)
elif BESIDE == "copy":
    read(wb.load_model(copy.deepcopy(model.hf), tokenizer=model.tokenizer, name="copy"))
read(model)
"""


def peak(script: str) -> int:
    """Largest resident set of a Python process that runs a script, bytes."""
    done = subprocess.run([sys.executable, "-c", f"{script}\n{PEAK}"], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def executed(path: Path) -> tuple[float, int]:
    """Seconds of a notebook from top to bottom, and its kernel's largest resident set in bytes."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(PEAK))
    began = time.perf_counter()
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}).execute()
    return time.perf_counter() - began, int(notebook.cells[-1].outputs[0].text)


def main() -> None:
    """Run, print, write ``benchmarks/results/quickstart.json``."""
    code = code_of(__file__, without=())
    wb.load_model()  # converts the model if this machine has not yet
    began = time.perf_counter()
    wb.load_model()
    load = time.perf_counter() - began
    path = Path("notebooks/01_quickstart.ipynb")
    seconds, memory = executed(path)
    alone, beside, copied = (peak(f"BESIDE = {other!r}\n{TWICE}") for other in (None, "edited", "copy"))
    result: dict[str, Any] = {
        "code": code.to_dict(),
        "cores": os.cpu_count(),
        "load_cached_model_s": round(load, 2),
        "quickstart_s": round(seconds),
        "quickstart_peak_gb": round(memory / 1e9, 2),
        "base_twice_peak_gb": round(alone / 1e9, 3),
        "base_and_edited_peak_gb": round(beside / 1e9, 3),
        "base_and_copy_peak_gb": round(copied / 1e9, 3),
    }
    print(
        f"{path}: {seconds:.0f} s on {os.cpu_count()} cores, at most {memory / 1e9:.2f} GB; cached model: {load:.1f} s"
    )
    goals = {
        "quickstart_peak_gb at most 2.5": memory <= 2.5e9,
        "beside the base at most 5% more": beside <= 1.05 * alone,
        "control: a copy is seen": copied > 1.05 * alone,
    }
    result |= {"beside_the_base_more": round(beside / alone - 1, 4), "met": goals}
    print(
        f"an edited model beside its base: {beside / 1e9:.3f} GB, {beside / alone - 1:+.1%} against the base twice"
        f"; a copy of the base: {copied / alone - 1:+.1%}"
    )
    print("; ".join(f"{goal}: {'yes' if met else 'no'}" for goal, met in goals.items()))
    out = Path("benchmarks/results/quickstart.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
