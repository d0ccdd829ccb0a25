"""Execute notebooks in place and keep them small: widget state without its empty fields, no execution times.

python -m benchmarks.notebooks notebooks/03_click_a_circuit.ipynb

A notebook stores every widget with every field of its layout, most of them null, which is also what they are when they
are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

STATE = "application/vnd.jupyter.widget-state+json"


def main(path: Path) -> None:
    """Execute, shrink, write."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(path.parent)}}).execute()
    shrink(notebook)
    nbformat.write(notebook, path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def shrink(notebook: nbformat.NotebookNode) -> None:
    """Leave out what says nothing, in place."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    for model in notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {}).values():
        state = model["state"]
        model["state"] = {k: v for k, v in state.items() if k != "_view_count" and (v is not None or k[0] == "_")}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        main(Path(name))
