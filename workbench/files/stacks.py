"""Stacks of edits as folders: ``stack.json`` names the layers, ``edits/*/`` are the edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.files.atomic import contents, new_folder, write_bytes
from workbench.files.checked_json import dump, errors_name, parse, unwrap, wrap
from workbench.files.edits import load_edit, save_edit
from workbench.files.paths import user_path
from workbench.types.stack import StackLayer

STACK_FILE, EDITS = "stack.json", "edits"
OWN_FILES = frozenset({STACK_FILE, EDITS})


def save_stack(layers: Sequence[StackLayer], base_fingerprint: str, base_name: str, path: str | Path) -> Path:
    """Write a stack to a folder, atomically. Arguments as ``EditStack`` has them.

    Returns:
        The folder.

    Raises:
        FileExistsError: There is something else of that name.
        OSError: It cannot be written; what was there is as it was.
    """
    entries = [
        {"folder": f"{i:03}", "on": x.on, "strength": x.strength, "stage": x.stage} for i, x in enumerate(layers)
    ]
    fields = {"layers": entries, "base_fingerprint": base_fingerprint, "base_name": base_name}
    with new_folder(path, _is_stack, ours=OWN_FILES) as folder:
        for entry, layer in zip(entries, layers, strict=True):
            save_edit(layer.edit, folder / EDITS / str(entry["folder"]))
        write_bytes(folder / STACK_FILE, dump(wrap("workbench-stack", fields)))
    return user_path(path)


def load_stack_layers(path: str | Path) -> tuple[tuple[StackLayer, ...], str, str]:
    """Read the layers of a stack that ``save_stack`` wrote, and the fingerprint and the name of its base.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is not a stack, of a newer schema version, incomplete or damaged; the message says which.
    """
    path = user_path(path)
    file = path / STACK_FILE
    if not path.is_dir():
        raise FileNotFoundError(f"There is no folder {path}. A stack is the folder that EditStack.save wrote.")
    if not file.is_file():
        raise ValueError(f"{path} is not a saved stack of edits, or not a whole one: it has no {STACK_FILE}.")
    fields = unwrap("workbench-stack", parse(file.read_bytes(), file), file)
    with errors_name(path):
        layers = tuple(_layer(path, entry) for entry in fields["layers"])
    return layers, fields["base_fingerprint"], fields["base_name"]


def _layer(path: Path, entry: Mapping[str, Any]) -> StackLayer:
    edit = load_edit(path / EDITS / entry["folder"])
    return StackLayer(edit=edit, on=entry["on"], strength=entry["strength"], stage=entry["stage"])


def _is_stack(folder: Path) -> bool:
    return not contents(folder) - OWN_FILES and (folder / STACK_FILE).is_file()
