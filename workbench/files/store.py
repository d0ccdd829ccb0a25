"""Results as files: edits, effect maps and reports, as JSON and safetensors that outlive the code.

Every file has a checksum of all that it means (``workbench.files.checked_json``), so that a damaged or hand-edited
file is refused instead of read as something slightly different. What is loaded equals what was saved to the bit; only
tuples inside ``provenance`` come back as lists. Writes are atomic (``workbench.files.atomic``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.files.atomic import new_folder, write_bytes
from workbench.files.checked_json import AGAIN, dump, naming, parse, parse_file, seal, sha256, unseal
from workbench.types import (
    AnswerRow,
    ArmRow,
    ArmTable,
    Edit,
    EditStage,
    EffectMap,
    EvalReport,
    Fact,
    GateDelta,
    Rate,
    Recipe,
    Selection,
    Step,
    TextRow,
    TracedPrompt,
)

EDIT_FILE, GATES_FILE = "edit.json", "gates.safetensors"
_HEADER = "workbench"


def save_edit(edit: Edit, path: str | Path) -> Path:
    """Write an edit to a folder: ``edit.json`` and ``gates.safetensors``.

    Args:
        edit: The edit.
        path: The folder. An edit that is there already is replaced once the new one is complete.

    Returns:
        The folder.

    Raises:
        FileExistsError: There is a file of that name, or a folder with something else than an edit in it.
        ValueError: The provenance holds something that JSON cannot.
        OSError: The folder cannot be written; what was there is as it was.
    """
    tensors = {_gate_name(s, key): gate for s in edit.stages for key, gate in s.delta.gates.items()}
    gates = safetensors.torch.save(tensors, metadata={"format": "pt"})
    text = dump(seal("workbench-edit", {**_edit_fields(edit), "gates_sha256": sha256(gates)}))
    with new_folder(path, _is_edit) as folder:
        write_bytes(folder / GATES_FILE, gates)
        write_bytes(folder / EDIT_FILE, text)
    return Path(path)


def load_edit(path: str | Path) -> Edit:
    """Read an edit written by ``Edit.save``.

    Args:
        path: The folder.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is not an edit, of another schema version, incomplete or damaged; the message says which, and
            what to do.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no folder {path}. An edit is the folder that Edit.save wrote.")
    if not (path / EDIT_FILE).is_file():
        adapter = (path / "adapter_config.json").is_file()
        other = " It is a PEFT adapter: load it with peft.PeftModel.from_pretrained." if adapter else ""
        raise ValueError(
            f"{path} is not a saved edit, or not a whole one: it has no {EDIT_FILE}.{other or ' ' + AGAIN}"
        )
    fields = unseal("workbench-edit", parse((path / EDIT_FILE).read_bytes(), path / EDIT_FILE), path / EDIT_FILE)
    if not (path / GATES_FILE).is_file():
        raise ValueError(f"The edit {path} is not whole: it has no {GATES_FILE}. {AGAIN}")
    gates = (path / GATES_FILE).read_bytes()
    with naming(path):
        if sha256(gates) != fields["gates_sha256"]:
            raise ValueError(
                f"{GATES_FILE} ({len(gates)} bytes) is damaged, cut short or of another edit: its SHA-256 is not "
                f"the one in {EDIT_FILE}."
            )
        edit = _edit_from(fields, safetensors.torch.load(gates))
        if edit.id != fields["id"]:
            raise ValueError(f"its gates make the edit {edit.id[:16]}, not {fields['id'][:16]}.")
    return edit


def save_effect_map(effects: EffectMap, path: str | Path) -> Path:
    """Write an effect map to one ``.safetensors`` file: values as tensors, everything else in the file's header.

    Returns:
        The path.

    Raises:
        ValueError: The provenance holds something that JSON cannot.
        OSError: The file cannot be written; what was there is as it was.
    """
    named = {"values": effects.values, "stderr": effects.stderr, "per_fact": effects.per_fact}
    tensors = {k: v.contiguous().clone() for k, v in named.items() if v is not None}
    fields = {
        "tensors_sha256": _tensors_sha256(tensors),
        "axes": list(effects.axes),
        "labels": {k: list(v) for k, v in effects.labels.items()},
        **{k: getattr(effects, k) for k in ("unit", "metric", "method", "clean", "corrupted", "n")},
        "prompts": [asdict(p) for p in effects.prompts],
        "provenance": effects.provenance,
    }
    header = json.dumps(seal("workbench-effect-map", fields))
    return write_bytes(path, safetensors.torch.save(tensors, metadata={_HEADER: header}))


def load_effect_map(path: str | Path) -> EffectMap:
    """Read an effect map written by ``EffectMap.save``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind or schema version, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a .safetensors file, or is damaged or cut short ({error}). {AGAIN}") from error
    if header is None:
        raise ValueError(f"{path} was not written by EffectMap.save: its header says nothing of this package.")
    fields = unseal("workbench-effect-map", parse(header.encode(), path), path)
    with naming(path):
        if _tensors_sha256(tensors) != fields.pop("tensors_sha256"):
            raise ValueError("its numbers do not have the checksum in its header.")
        fields["axes"] = tuple(fields["axes"])
        fields["labels"] = {k: tuple(v) for k, v in fields["labels"].items()}
        fields["prompts"] = tuple(TracedPrompt(**_tuples(p)) for p in fields["prompts"])
        return EffectMap(**tensors, **fields)  # type: ignore[arg-type]


def report_to_dict(report: EvalReport) -> dict[str, Any]:
    """A report as plain JSON values, with its schema version and a checksum.

    NaN becomes null (in ``kl``, where null means not measured, the text "nan"); infinities become text.
    """
    rows = [{**asdict(r), "nll": _number(r.nll), "kl": _optional_number(r.kl)} for r in report.rows]
    rates = {
        stage: {
            name: {**asdict(r), **{k: _number(getattr(r, k)) for k in ("value", "low", "high")}}
            for name, r in of.items()
        }
        for stage, of in report.rates.items()
    }
    names = {k: list(getattr(report, k)) for k in ("facts", "stages", "missing")}
    texts = [{**asdict(r), "nll": _number(r.nll)} for r in report.texts]
    document = {**names, "rates": rates, "rows": rows, "texts": texts, "provenance": report.provenance}
    return seal("workbench-report", document)


def report_from_dict(data: Mapping[str, Any], where: str | Path = "this dictionary") -> EvalReport:
    """The inverse of ``report_to_dict``.

    Args:
        data: The dictionary.
        where: Its source, for messages.

    Raises:
        ValueError: It is of another kind or schema version, or was changed.
    """
    fields = unseal("workbench-report", data, where)
    with naming(where):
        return EvalReport(
            rows=tuple(
                AnswerRow(**{**r, "nll": _read_number(r["nll"]), "kl": None if r["kl"] is None else float(r["kl"])})
                for r in fields["rows"]
            ),
            rates={
                stage: {
                    name: Rate(**{**r, **{k: _read_number(r[k]) for k in ("value", "low", "high")}})
                    for name, r in of.items()
                }
                for stage, of in fields["rates"].items()
            },
            texts=tuple(
                TextRow(**{**r, "nll": _read_number(r["nll"])})
                for r in fields.get("texts", ())  # older reports have none
            ),
            **{k: tuple(fields[k]) for k in ("facts", "stages", "missing")},
            provenance=fields["provenance"],
        )


def save_report(report: EvalReport, path: str | Path) -> Path:
    """Write a report as one JSON file. Returns the path.

    Raises:
        ValueError: The provenance holds something that JSON cannot.
        OSError: The file cannot be written; what was there is as it was.
    """
    return write_bytes(path, dump(report_to_dict(report)))


def load_report(path: str | Path) -> EvalReport:
    """Read a report written by ``EvalReport.save``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind or schema version, or damaged.
    """
    path = Path(path)
    return report_from_dict(parse_file(path), path)


def save_arms(table: ArmTable, path: str | Path) -> Path:
    """Write a table of control arms, with the reports of all runs, as one JSON file. Returns the path.

    Raises:
        ValueError: The provenance holds something that JSON cannot.
        OSError: The file cannot be written; what was there is as it was.
    """
    rows = [
        {f.name: getattr(row, f.name) for f in fields_of(row)}
        | {"report": report_to_dict(row.report), "selection": None if row.selection is None else str(row.selection)}
        for row in table.rows
    ]
    document = {k: getattr(table, k) for k in ("threshold", "validation", "notes", "provenance")}
    return write_bytes(path, dump(seal("workbench-arms", {**document, "rows": rows})))


def load_arms(path: str | Path) -> ArmTable:
    """Read a table written by ``ArmTable.save``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind or schema version, or damaged.
    """
    path = Path(path)
    fields = unseal("workbench-arms", parse_file(path), path)
    with naming(path):
        rows = [
            ArmRow(
                **row
                | {
                    "report": report_from_dict(row["report"], path),
                    "selection": None if row["selection"] is None else Selection(row["selection"]),
                }
            )
            for row in fields["rows"]
        ]
        return ArmTable(
            rows=tuple(rows),
            threshold=fields["threshold"],
            validation={fact: tuple(questions) for fact, questions in fields["validation"].items()},
            notes=tuple(fields["notes"]),
            provenance=fields["provenance"],
        )


def _is_edit(folder: Path) -> bool:
    """Whether a folder holds an edit of ours (damaged ones too) and nothing else."""
    if {p.name for p in folder.iterdir()} - {EDIT_FILE, GATES_FILE} or not (folder / EDIT_FILE).is_file():
        return False
    with (folder / EDIT_FILE).open("rb") as file:
        return b'"workbench-edit"' in file.read(200)


def _gate_name(stage: EditStage, key: tuple[int, str]) -> str:
    return f"{stage.name}.{key[0]}.{key[1]}"


def _edit_fields(edit: Edit) -> dict[str, Any]:
    return {
        "id": edit.id,
        "base_name": edit.base_name,
        "base_fingerprint": edit.base_fingerprint,
        "stages": [{"name": s.name, "gates": [list(key) for key in s.delta.gates]} for s in edit.stages],
        "selection": [str(c) for c in edit.selection],
        "selector": edit.selector,
        "recipe": edit.recipe.to_dict(),
        "facts": [f.to_dict() for f in edit.facts],
        "retain_ids": list(edit.retain_ids),
        "history": [asdict(s) for s in edit.history],
        "provenance": edit.provenance,
    }


def _edit_from(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Edit:
    stages: list[EditStage] = []
    for stage in fields["stages"]:
        gates = {(layer, site): tensors[f"{stage['name']}.{layer}.{site}"] for layer, site in stage["gates"]}
        stages.append(EditStage(stage["name"], GateDelta(gates)))
    return Edit(
        stages=tuple(stages),
        selection=Selection(fields["selection"]),
        recipe=Recipe.from_dict({"draw_back": None} | fields["recipe"]),  # files from before there was one lack it
        facts=tuple(Fact.from_dict(f) for f in fields["facts"]),
        retain_ids=tuple(fields["retain_ids"]),
        history=tuple(Step(**s) for s in fields["history"]),
        **{k: fields[k] for k in ("selector", "base_fingerprint", "base_name", "provenance")},
    )


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}


def _number(value: float) -> float | str | None:
    return value if math.isfinite(value) else None if math.isnan(value) else str(value)


def _optional_number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def _read_number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
