"""Execute notebooks in place and keep them small: widget state without what is not shown and without empty fields, no
execution times.

python -m benchmarks.notebooks notebooks/03_click_a_circuit.ipynb

A notebook stores every widget with every field of its layout, most of them null, which is also what they are when they
are left out.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"


def main(path: Path) -> None:
    """Execute, shrink, write."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(path.parent)}}).execute()
    shrink(notebook)
    write(notebook, path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def shrink(notebook: nbformat.NotebookNode) -> None:
    """Leave out what says nothing, in place."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    models = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    shown = {
        output["data"][VIEW]["model_id"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if VIEW in output.get("data", {})
    }
    kept = reachable(models, shown)
    for name in list(models):
        if name not in kept:
            del models[name]
            continue
        state = models[name]["state"]
        models[name]["state"] = {
            k: v for k, v in state.items() if k != "_view_count" and (v is not None or k[0] == "_")
        }


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook with each widget's state on one line: a tenth of the file would be indentation."""
    held = notebook.metadata.get("widgets", {}).get(STATE, {})
    models = held.pop("state", None)
    if models is None:
        nbformat.write(notebook, path)
        return
    held["state"] = "@state@"
    lines = ",\n".join(
        f"{json.dumps(name)}:{json.dumps(model, sort_keys=True, separators=(',', ':'))}"
        for name, model in sorted(models.items())
    )
    path.write_text(nbformat.writes(notebook).replace('"@state@"', "{\n" + lines + "\n}") + "\n", encoding="utf-8")
    held["state"] = models


def reachable(models: dict[str, Any], shown: set[str]) -> set[str]:
    """Ids of the widgets that are shown and of all that they consist of."""
    found: set[str] = set()
    todo = [name for name in shown if name in models]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            parts = re.findall(r"IPY_MODEL_(\w+)", json.dumps(models[name]["state"]))
            todo += [part for part in parts if part in models]
    return found


if __name__ == "__main__":
    for name in sys.argv[1:]:
        main(Path(name))
