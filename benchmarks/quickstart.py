"""Seconds that notebook 01 takes from top to bottom, and to load the cached model.

python -m benchmarks.quickstart
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

import workbench as wb


def main() -> None:
    """Run, print, write ``out/bench/quickstart.json``."""
    wb.load_model()  # converts the model if this machine has not yet
    began = time.perf_counter()
    wb.load_model()
    load = time.perf_counter() - began
    path = Path("notebooks/01_quickstart.ipynb")
    notebook = nbformat.read(path, as_version=4)
    began = time.perf_counter()
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}).execute()
    seconds = time.perf_counter() - began
    result = {"cores": os.cpu_count(), "load_cached_model_s": round(load, 2), "quickstart_s": round(seconds)}
    print(f"{path}: {seconds:.0f} s on {os.cpu_count()} cores; cached model: {load:.1f} s")
    out = Path("out/bench/quickstart.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
