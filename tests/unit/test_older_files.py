"""Files that version 1 of the schemas wrote load, and give the numbers that they gave then.

``tests/data/version_1`` is a session of the bundled model: an edit of gates, its report, two probes and a map, with
``expected.json``: what the code of then said of them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from workbench.files.edits import load_edit
from workbench.files.session import load_session
from workbench.language.prompts import prompt_ids
from workbench.tracing.dla import head_outputs
from workbench.types import EvalReport, OtherFit, ProbeReport

SAVED = Path(__file__).parents[1] / "data" / "version_1"
EXPECTED: dict[str, Any] = json.loads((SAVED / "expected.json").read_text(encoding="utf-8"))


def test_an_edit_is_the_same_edit() -> None:
    edit = load_edit(SAVED / "session" / "edit")
    assert edit.id == EXPECTED["id"] and edit.base_fingerprint == EXPECTED["fingerprint"]
    assert repr(edit) == EXPECTED["repr"] and edit.shortfall == EXPECTED["shortfall"]
    assert (edit.delta().n_moved(), edit.delta().largest_move()) == (EXPECTED["n_moved"], EXPECTED["largest_move"])
    assert edit.method == "ia3" and edit.recipe == wb.Recipe(
        steps=(2, 4), average=0, batch_size=2, retain_batch_size=2, learning_rate=0.2, draw_back=0.9
    )


def test_what_decided_behaviour_in_its_provenance_is_in_fields() -> None:
    edit = load_edit(SAVED / "session" / "edit")
    assert edit.learned == EXPECTED["learned"] and edit.strength == EXPECTED["drawn_back_to"]
    assert list(edit.retain_ids) == EXPECTED["retain_ids"] and edit.first_fit is edit.second_fit is None
    assert edit.modules is not None and edit.modules.layers == "model.layers"
    was = EXPECTED["modules"]
    assert [vars(site) for site in edit.modules.sites] == [{**site, "groups": 1} for site in was["sites"]]
    assert edit.modules.fan_in_fan_out == was["fan_in_fan_out"]
    assert "modules" not in edit.provenance and "learned" not in edit.provenance["settings"]


def test_it_is_written_in_the_new_version_and_stays_the_same(tmp_path: Path) -> None:
    edit = load_edit(SAVED / "session" / "edit")
    shutil.copytree(SAVED / "session" / "edit", tmp_path / "edit")
    again = load_edit(edit.save(tmp_path / "edit"))  # over the old one
    assert again.id == edit.id and {p.name for p in (tmp_path / "edit").iterdir()} == {
        "edit.json",
        "tensors.safetensors",
    }
    assert json.loads((tmp_path / "edit" / "edit.json").read_text(encoding="utf-8"))["schema_version"] == 4


def rewritten(folder: Path, to: Path, change: Any) -> Path:
    """A copy of a saved edit with other fields and a right checksum."""
    import hashlib

    shutil.copytree(folder, to)
    document = json.loads((to / "edit.json").read_text(encoding="utf-8"))
    fields = {k: v for k, v in document.items() if k not in ("kind", "schema_version", "sha256")}
    change(fields)
    plain = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    document = {"kind": "workbench-edit", "schema_version": 1, "sha256": hashlib.sha256(plain).hexdigest(), **fields}
    (to / "edit.json").write_text(json.dumps(document), encoding="utf-8")
    return to


def test_an_edit_from_before_edits_were_drawn_back_says_so(tmp_path: Path) -> None:
    path = rewritten(SAVED / "session" / "edit", tmp_path / "e", lambda fields: fields["recipe"].pop("draw_back"))
    assert load_edit(path).recipe.least_learned is None


def test_an_edit_of_a_second_fit_tells_of_the_first(tmp_path: Path) -> None:
    first = {"neurons": 2000, "steps": None, "learned": 0.25, "seconds_to_select": 1.5, "seconds_to_fit": 2.5}
    path = rewritten(
        SAVED / "session" / "edit",
        tmp_path / "e",
        lambda fields: fields["provenance"]["settings"].update(first_fit=first),
    )
    edit = load_edit(path)
    assert edit.first_fit == OtherFit(neurons=2000, learned=0.25, seconds_to_select=1.5, seconds_to_fit=2.5)
    assert edit.asked_recipe.stage_steps == (10, 26)


def test_what_cannot_be_migrated_is_one_clear_error(tmp_path: Path) -> None:
    path = rewritten(SAVED / "session" / "edit", tmp_path / "e", lambda fields: fields.pop("gates_sha256"))
    with pytest.raises(
        ValueError, match=r"edit\.json is of the older version 1 and cannot be read: it lacks 'gates_sha256'"
    ):
        load_edit(path)


def test_a_report_gives_the_same_rates() -> None:
    report = EvalReport.load(SAVED / "session" / "report.json")
    rates = {stage: {name: rate.value for name, rate in of.items()} for stage, of in report.rates.items()}
    assert len(report.rows) == EXPECTED["n_rows"]
    for stage, of in EXPECTED["rates"].items():
        for name, value in of.items():
            assert rates[stage][name] == pytest.approx(value, nan_ok=True, abs=0)


def test_a_probe_report_and_a_session_are_whole(tmp_path: Path) -> None:
    session = load_session(SAVED / "session")
    assert session.probes is not None and len(session.probes.rows) == EXPECTED["probe_rows"]
    assert len(ProbeReport.load(SAVED / "session" / "probes.json").rows) == EXPECTED["probe_rows"]
    assert float(session.maps["heads"].values.sum()) == EXPECTED["map_sum"]
    assert session.edit is not None and session.edit.id == EXPECTED["id"]
    again = load_session(session.save(tmp_path / "again"))
    assert again.edit is not None and again.edit.id == EXPECTED["id"]
    for one in (session, again):
        assert one.edit is not None and one.report is not None and one.probes is not None
        results = (one.report, one.probes, one.maps["heads"])
        assert [r.base_fingerprint for r in results] == [EXPECTED["fingerprint"]] * 3
        assert [one.report.edit_id, one.probes.edit_id] == [one.edit.id] * 2
        assert one.maps["heads"].corruption == one.maps["heads"].provenance["settings"]["corruption"]
        asked = one.probes.provenance["settings"]
        assert list(one.probes.asked) == asked["probes"] and one.probes.seed == asked["seed"]
    assert again.probes is not None and [str(f) for f in again.probes.findings] == [
        str(f) for f in session.probes.findings
    ]


@pytest.mark.model
def test_heads_of_the_edited_bundled_model_add_up(model: wb.LoadedModel, facts: wb.FactSet) -> None:
    """Its output projection is square: a wrapped one was once read the wrong way round, and heads were off by 15."""
    prompt = wb.traced_prompt(model, facts["france-capital"])
    with wb.applied(model, load_edit(SAVED / "session" / "edit")) as edited:
        heads, whole = head_outputs(edited, prompt, 10)  # the layer whose heads have gates
    assert (heads.sum(1) - whole).abs().max() < 1e-4 < whole.abs().max()


@pytest.mark.model
def test_it_does_the_same_on_the_bundled_model(model: wb.LoadedModel) -> None:
    edit = load_edit(SAVED / "session" / "edit")
    ids = torch.tensor([prompt_ids(model, edit.facts[0].question, "chat")])
    cases = {"unlearn": ("unlearn", 1.0), "learn": (None, 1.0), "half": (None, 0.5)}
    for name, (stage, strength) in cases.items():
        with wb.applied(model, edit, stage=stage, strength=strength) as edited, torch.no_grad():
            found = edited.hf(ids).logits[0, -1, :8].tolist()
        assert found == pytest.approx(EXPECTED["logits"][name], abs=2e-3)
