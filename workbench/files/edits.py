"""Edits as folders: ``edit.json`` says what the edit is, ``tensors.safetensors`` holds its numbers.

The file has a checksum of all that it means, so that a damaged or hand-edited one is refused instead of read as
something slightly different. What is loaded equals what was saved to the bit; only tuples inside ``provenance`` come
back as lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from workbench.files.atomic import contents, new_folder, write_bytes
from workbench.files.checked_json import RETRY_HINT, dump, errors_name, parse, sha256, unwrap, wrap
from workbench.files.paths import user_path
from workbench.types import (
    EarlierEdit,
    Edit,
    EditModules,
    EditStage,
    Fact,
    OtherFit,
    Selection,
    SiteModule,
    Step,
    Write,
    delta_from,
)
from workbench.types.plain import lists_as_tuples
from workbench.types.recipe import recipe_from_dict
from workbench.types.torch_settings import own_torch_settings

EDIT_FILE, TENSORS_FILE = "edit.json", "tensors.safetensors"
GATES_FILE = "gates.safetensors"
"""What version 1 called the file of tensors."""
OWN_FILES = frozenset({EDIT_FILE, TENSORS_FILE, GATES_FILE})
_PLAIN = ("selector", "base_fingerprint", "base_name", "learned", "strength", "provenance")


def save_edit(edit: Edit, path: str | Path) -> Path:
    """Write an edit to a folder: ``edit.json`` and ``tensors.safetensors``.

    Args:
        edit: The edit.
        path: The folder. An edit that is there already is replaced once the new one is complete.

    Returns:
        The folder.

    Raises:
        FileExistsError: There is a file of that name, or a folder with something else than an edit in it.
        ValueError: The provenance holds something that JSON cannot, or stages have names that cannot be told apart.
        OSError: The folder cannot be written; what was there is as it was.
    """
    tensors: dict[str, Tensor] = {}
    for stage in edit.stages:
        # Copies: one delta may be in two stages, and safetensors refuses tensors that share memory.
        own = {f"{stage.name}.{name}": t.contiguous().clone() for name, t in stage.delta.tensors().items()}
        if clash := sorted(own.keys() & tensors.keys()):
            raise ValueError(
                f"The stage {stage.name!r} and one before it both name a tensor {clash[0]!r}, so the file could not "
                "tell them apart. Give the stages names without dots."
            )
        tensors |= own
    content = safetensors.torch.save(tensors, metadata={"format": "pt"})
    text = dump(wrap("workbench-edit", {**_fields(edit), "tensors_sha256": sha256(content)}))
    with new_folder(path, _is_edit, ours=OWN_FILES) as folder:
        write_bytes(folder / TENSORS_FILE, content)
        write_bytes(folder / EDIT_FILE, text)
    return user_path(path)


@own_torch_settings()
def load_edit(path: str | Path) -> Edit:
    """Read an edit written by ``Edit.save``, of this or an older version.

    Args:
        path: The folder.

    Returns:
        The edit, with the same ``id``.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is not an edit, of a newer schema version, incomplete or damaged; the message says which.

    Example:
        >>> folder = edit.save("france")
        >>> wb.load_edit(folder).id == edit.id
        True
    """
    path = user_path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no folder {path}. An edit is the folder that Edit.save wrote.")
    file = path / EDIT_FILE
    if not file.is_file():
        adapter = (path / "adapter_config.json").is_file()
        other = " It is a PEFT adapter: load it with peft.PeftModel.from_pretrained." if adapter else ""
        raise ValueError(
            f"{path} is not a saved edit, or not a whole one: it has no {EDIT_FILE}.{other or ' ' + RETRY_HINT}"
        )
    document = parse(file.read_bytes(), file)
    fields = unwrap("workbench-edit", document, file)
    numbers = path / (GATES_FILE if document["schema_version"] == 1 else TENSORS_FILE)
    if not numbers.is_file():
        raise ValueError(f"The edit {path} is not whole: it has no {numbers.name}. {RETRY_HINT}")
    content = numbers.read_bytes()
    with errors_name(path):
        if sha256(content) != fields["tensors_sha256"]:
            raise ValueError(
                f"{numbers.name} ({len(content)} bytes) is damaged, cut short or of another edit: its SHA-256 is not "
                f"the one in {EDIT_FILE}."
            )
        edit = _edit_from(fields, safetensors.torch.load(content))
        if edit.id != fields["id"]:
            raise ValueError(f"its numbers make the edit {edit.id[:16]}, not {fields['id'][:16]}.")
    return edit


def _is_edit(folder: Path) -> bool:
    """Whether a folder holds an edit of ours (damaged ones too) and nothing else."""
    if contents(folder) - OWN_FILES or not (folder / EDIT_FILE).is_file():
        return False
    with (folder / EDIT_FILE).open("rb") as file:
        return b'"workbench-edit"' in file.read(200)


def _fields(edit: Edit) -> dict[str, Any]:
    return {
        "id": edit.id,
        "stages": [{"name": s.name, "delta": s.delta.header()} for s in edit.stages],
        "selection": [str(c) for c in edit.selection],
        "method": edit.method,
        "recipe": edit.recipe.to_dict(),
        "facts": [f.to_dict() for f in edit.facts],
        **{name: list(getattr(edit, name)) for name in ("retain_ids", "selection_ids", "fisher_ids")},
        "closed_relations": list(edit.closed_relations),
        "history": [asdict(s) for s in edit.history],
        "writes": [write.to_dict() for write in edit.writes],
        "modules": None if edit.modules is None else _described(edit.modules),
        "first_fit": None if edit.first_fit is None else asdict(edit.first_fit),
        "second_fit": None if edit.second_fit is None else asdict(edit.second_fit),
        **({"reached": edit.reached} if edit.reached else {}),  # older versions measured the last stage alone
        **({"earlier": [asdict(one) for one in edit.earlier]} if edit.earlier else {}),  # older versions had none
        **{name: getattr(edit, name) for name in _PLAIN},
    }


def _edit_from(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Edit:
    stages: list[EditStage] = []
    for stage in fields["stages"]:
        own = {n.removeprefix(f"{stage['name']}."): t for n, t in tensors.items() if n.startswith(f"{stage['name']}.")}
        stages.append(EditStage(stage["name"], delta_from(stage["delta"], own)))
    return Edit(
        stages=tuple(stages),
        selection=Selection(fields["selection"]),
        recipe=recipe_from_dict(fields["method"], fields["recipe"]),
        facts=tuple(Fact.from_dict(f) for f in fields["facts"]),
        closed_relations=tuple(fields.get("closed_relations", ())),
        history=tuple(Step(**s) for s in fields["history"]),
        writes=tuple(Write.from_dict(write) for write in fields["writes"]),
        modules=_modules(fields["modules"]),
        first_fit=_other_fit(fields["first_fit"]),
        second_fit=_other_fit(fields["second_fit"]),
        reached=dict(fields.get("reached", {})),
        earlier=tuple(EarlierEdit(**lists_as_tuples(one)) for one in fields.get("earlier", ())),
        **{name: tuple(fields[name]) for name in ("retain_ids", "selection_ids", "fisher_ids")},
        **{name: fields[name] for name in _PLAIN},
    )


def _described(modules: EditModules) -> dict[str, Any]:
    """Module names as fields; the groups of a site only where it has several, as older versions had none."""
    fields = asdict(modules)
    for site in fields["sites"]:
        if site["groups"] == 1:
            del site["groups"]
    return fields


def _modules(fields: Mapping[str, Any] | None) -> EditModules | None:
    if fields is None:
        return None
    given: dict[str, Any] = {**fields, "sites": tuple(SiteModule(**site) for site in fields["sites"])}
    return EditModules(**given)


def _other_fit(fields: Mapping[str, Any] | None) -> OtherFit | None:
    return None if fields is None else OtherFit(**lists_as_tuples(fields))
