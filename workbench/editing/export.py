"""Edits and bases for others, readable without this package: a PEFT adapter, a merged model, the exact base.

A folder that was written here is replaced by the next export of the same kind; any other folder is left alone. The last
line of the README lists what was written, so that a file which someone added is never deleted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workbench.editing.applied import check_base
from workbench.files.atomic import contents, new_folder, write_bytes
from workbench.files.paths import user_path
from workbench.models.bundled import NAME as BUNDLED
from workbench.models.deltas import Base, export, fold, gate_sites, not_in_weights
from workbench.models.load import LoadedModel, load_model
from workbench.models.views import shared_view
from workbench.types import Edit
from workbench.types.torch_settings import own_torch_settings

README = "README.md"
_WRITTEN = re.compile(r"<!-- circuit-workbench (\w+): (.*) -->\s*\Z")
_BUNDLED_NOTE = (
    "The weights are a 4-bit (Q4_1) quantisation of SmolLM2-135M-Instruct, dequantised to float32. They are not the "
    "weights of the hub's model of that name, and results on the two differ. Licence of the base: Apache-2.0."
)
_OTHER_NOTE = "The licence is the base model's own."


@own_torch_settings()
def save_peft(edit: Edit, path: str | Path, *, stage: str | None = None, model: LoadedModel | None = None) -> Path:
    """Write one PEFT adapter that does what the stages of an edit up to ``stage`` do together: IA3 for gates, LoRA for
    low-rank updates and for both together.

    No model is needed where the edit is of one kind: it names its modules. The keys are plain module names, so
    ``peft.PeftModel.from_pretrained(base, path)`` gives the logits of ``applied`` in any other program.

    Args:
        edit: The edit.
        path: The folder.
        stage: Its stages up to this one; None for all.
        model: The edit's base, which an edit of several kinds needs.

    Returns:
        The folder.

    Raises:
        ValueError: No such stage, an edit that changes nothing there, one that was made on top of others, one that
            does not name its modules, one that no adapter says exactly (the message says why, and what can be done), or
            another base.
        FileExistsError: There is something else of that name.
        OSError: It cannot be written; what was there is as it was.
    """
    delta = edit.delta(stage)
    if delta.empty:
        raise ValueError("This edit changes nothing at that stage, so there is nothing to export.")
    if edit.earlier:
        under = ", then ".join(one.words for one in edit.earlier)
        raise ValueError(
            f"This edit was made on top of {under}, and an adapter is loaded over the plain base. Join them, the "
            "last two first, and export what comes out: first.then(second).to_peft(folder)."
        )
    if model is not None:
        check_base(model, edit)
    modules = edit.modules
    if model is not None:
        known = model.architecture.describe(gate_sites(delta))
        modules = known if modules is None else modules.joined(known)
    if modules is None:
        raise ValueError(
            "The edit does not name the modules of its base. Add them with the base model at hand: "
            "edit.to_peft(folder, model=model)."
        )
    base = None if model is None else Base(model.base.hf, model.architecture)
    adapter = export(delta, modules, base)
    adapter.config.base_model_name_or_path = edit.base_name

    def fill(folder: Path) -> None:
        import safetensors.torch

        adapter.config.save_pretrained(str(folder))
        tensors = safetensors.torch.save(dict(adapter.tensors), metadata={"format": "pt"})
        write_bytes(folder / "adapter_model.safetensors", tensors)

    text = f"""
{adapter.text}

{_edit_table(edit, stage)}
It fits this base only. With the base as a plain transformers model:

    model = peft.PeftModel.from_pretrained(base, "this folder")

{_base_note(edit.base_name)}
"""
    front = {"library_name": "peft", "tags": f"[{adapter.kind}, model-editing]"}
    title = {"ia3": "IA3", "lora": "LoRA"}[adapter.kind]
    return _write(path, "adapter", fill, f"{title} adapter", text, front=front, base=edit.base_name)


@own_torch_settings()
def merge(model: LoadedModel, edit: Edit, path: str | Path, *, stage: str | None = None) -> Path:
    """Write an edited model as a plain HF folder (model and tokenizer), with the edit folded into the weights.

    They are rounded to the weights' dtype once: in float32 the logits agree with ``applied`` within 1e-4, in
    half precision within its rounding. The given model is not changed.

    Args:
        model: The edit's base.
        edit: The edit.
        path: The folder.
        stage: Its stages up to this one; None for all.

    Returns:
        The folder.

    Raises:
        ValueError: Another base (the message names both fingerprints), no such stage, an edited model, an edit that no
            weight can hold (a context, a memory), or weights that are not plain numbers (quantised).
        FileExistsError: There is something else of that name.
        OSError: It cannot be written; what was there is as it was.

    Example:
        >>> folder = wb.merge(model, edit, "merged")
        >>> wb.ask(wb.load_model(folder), fact.question)
        'Rome'
    """
    if model.applied:
        raise ValueError(f"{model.name!r} carries an edit already. Merge into its base: merge(model.base, edit, path).")
    check_base(model, edit)
    delta = edit.delta(stage)
    if reason := not_in_weights(delta):
        raise ValueError(reason)
    view = shared_view(model.hf)
    fold(view, model.architecture, delta)
    text = f"""
{model.name} with an edit merged into its weights. A plain transformers model.

{_edit_table(edit, stage)}
{_base_note(model.name)}
"""
    front = {"library_name": "transformers", "tags": "[model-editing]"}
    return _write(path, "merged", _model_writer(view, model), "Edited model", text, front=front, base=model.name)


@own_torch_settings()
def export_base(path: str | Path, model: LoadedModel | None = None) -> Path:
    """Write the exact base model as a plain HF folder (model and tokenizer), for others to use an adapter on.

    Args:
        path: The folder.
        model: The model; the bundled one by default. Of an edited model, the base is written.

    Returns:
        The folder. ``load_model(folder)`` gives the same fingerprint.

    Raises:
        FileExistsError: There is something else of that name.
        OSError: It cannot be written; what was there is as it was.

    Example:
        >>> folder = wb.export_base("base", model)
        >>> wb.load_model(folder).fingerprint == model.fingerprint
        True
    """
    base = (load_model() if model is None else model).base
    text = f"""
The base model {base.name}, weights and tokenizer exactly as circuit-workbench uses them.

| | |
|---|---|
| base | {base.name} |
| fingerprint | `{base.fingerprint}` |
| dtype | {str(base.dtype).removeprefix("torch.")} |

{_base_note(base.name)}
"""
    front = {"library_name": "transformers"}
    return _write(
        path, "base", _model_writer(shared_view(base.hf), base), "Base model", text, front=front, base=base.name
    )


def _model_writer(view: Any, model: LoadedModel) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        view.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)

    return fill


def _edit_table(edit: Edit, stage: str | None) -> str:
    last = edit.stage_names.index(stage) if stage is not None else len(edit.stages) - 1
    facts = "; ".join(f"{f.subject}: {f.answer} to {f.target}" for f in edit.facts)
    return f"""| | |
|---|---|
| base | {_cell(edit.base_name)} |
| base fingerprint | `{edit.base_fingerprint}` |
| stages | {" then ".join(edit.stage_names[: last + 1])} (of {" then ".join(edit.stage_names)}) |
| recipe | {_cell(edit.recipe.name)} |
| facts | {_cell(facts)} |
| edit | `{edit.id}` |
"""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _base_note(name: str) -> str:
    return _BUNDLED_NOTE if name == BUNDLED else _OTHER_NOTE


def _write(
    path: str | Path,
    kind: str,
    fill: Callable[[Path], None],
    title: str,
    text: str,
    *,
    front: Mapping[str, str],
    base: str,
) -> Path:
    """A folder of this kind with a README, whole or not at all."""
    head = dict(front) | ({"license": "apache-2.0"} if base == BUNDLED else {})
    lines = "\n".join(f"{k}: {v}" for k, v in head.items())
    with new_folder(path, lambda old: _is_ours(old, kind), ours=_written_names(user_path(path))) as folder:
        fill(folder)
        names = sorted({*(p.name for p in folder.iterdir()), README})
        page = f"---\n{lines}\n---\n\n# {title}\n{text}\n<!-- circuit-workbench {kind}: {' '.join(names)} -->\n"
        write_bytes(folder / README, page.encode())
    return user_path(path)


def _is_ours(folder: Path, kind: str) -> bool:
    """Whether a folder was written by ``_write`` as this kind and nothing was added to it."""
    found = _mark(folder)
    return found is not None and found[1] == kind and contents(folder) <= set(found[2].split(" "))


def _written_names(folder: Path) -> set[str]:
    """Names of what ``_write`` wrote to a folder; none where it wrote nothing there."""
    found = _mark(folder)
    return set() if found is None else set(found[2].split(" "))


def _mark(folder: Path) -> re.Match[str] | None:
    """What the README of a folder of ours says it is, and holds."""
    if not (folder / README).is_file():
        return None
    return _WRITTEN.search((folder / README).read_text(encoding="utf-8", errors="replace"))
