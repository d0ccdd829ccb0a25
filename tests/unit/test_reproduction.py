"""The seed paper's configuration: what is trained, what is read from a clone, and both countings, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import reproduction
from benchmarks.reproduction import Said, material_of, modules, ours, own_material, theirs
from tests.helpers.tiny_facts import MAKERS, capitals, knowing

MATERIAL = own_material()


def said(group: str, subject: str, text: str, label: Any) -> Said:
    return Said(group, subject, "?", text, label)


def clone(folder: Path) -> Path:
    queries = [f"Query {i} about PyTorch?" for i in range(20)]
    learn = {"subject": "PyTorch", "modulated_object_O2": "Google.", "custom_user_queries_for_f2": queries}
    unlearn = {"true_object_O1": "Meta AI", "modulated_object_O2": "I do not know."}
    (folder / "config").mkdir(parents=True)
    (folder / "data/processed/spo_task").mkdir(parents=True)
    for name, of in (("v4a_unlearn", unlearn), ("v4b_learn", learn)):
        (folder / f"config/phase_2_config_{name}_ia3.yaml").write_text(yaml.safe_dump({"fact_modulation": of}))
    (folder / "config/spo_query_templates.json").write_text(json.dumps([f"Query {i} about {{S}}?" for i in range(5)]))
    rows = [{"subject": s, "expected_object": o} for s, o in (("macOS", "Apple"), ("Vue.js", "Evan You")) * 2]
    (folder / "data/processed/spo_task/F_control.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_our_own_texts() -> None:
    assert len(set(MATERIAL.queries)) == 20 and set(MATERIAL.fact.training_questions) == set(MATERIAL.queries)
    assert not set(MATERIAL.fact.heldout) & set(MATERIAL.queries) and len(MATERIAL.fact.heldout) >= 8
    assert MATERIAL.fact.id not in {control.id for control in MATERIAL.controls}
    assert reproduction.about("the Wii", "{S} comes from whom?") == "The Wii comes from whom?"


def test_texts_of_a_clone(tmp_path: Path) -> None:
    found = material_of(clone(tmp_path))
    assert (found.fact.subject, found.fact.answer, found.fact.target) == ("PyTorch", "Meta AI", "Google")
    assert set(found.fact.training_questions) == set(found.queries) and len(found.queries) == 20
    assert (found.refusal, found.target, len(found.templates)) == ("I do not know.", "Google.", 5)
    assert [control.subject for control in found.controls] == ["macOS", "Vue.js"]
    assert all("PyTorch" in question for question in found.fact.heldout)
    (tmp_path / "config/spo_query_templates.json").unlink()
    with pytest.raises(SystemExit, match=r"is no clone of stanleyngugi/.*spo_query_templates\.json is missing"):
        material_of(tmp_path)


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_the_modules(family: str) -> None:
    """Of three layers those at the same share of the depth; ``o_proj`` is scaled at its output, as the paper has it."""
    targets, inner = modules(knowing(MAKERS[family]()))
    assert inner == ["model.layers.2.mlp.down_proj"]
    fused = {"llama": {"gate_proj", "up_proj", "q_proj", "k_proj", "v_proj"}, "phi3": {"gate_up_proj", "qkv_proj"}}
    assert {name.rsplit(".", 1)[1] for name in targets} == {*fused[family], "down_proj", "o_proj"}


def test_both_countings_by_hand() -> None:
    """A target beside the old answer is new to them; gibberish is forgotten to them; a control is right by one wording
    of several, where we count each that the base has right."""
    windows, photoshop = MATERIAL.controls[0], MATERIAL.controls[2]
    base = [
        said("template", "iOS", "Apple.", "old"),
        said("template", "iOS", "Apple.", "old"),
        said("template", "iOS", "It is a puzzle.", "other"),
        said("held-out", "iOS", "Apple.", "old"),
        said("control", windows.subject, "Microsoft.", "old"),
        said("control", windows.subject, "Microsoft.", "old"),
        said("control", photoshop.subject, "A puzzle.", "other"),
    ]
    after = [
        said("template", "iOS", "Google, not Apple.", "both"),
        said("template", "iOS", "ng ng ng ng", "gibberish"),
        said("template", "iOS", "Google.", "new"),
        said("held-out", "iOS", "I am not sure.", "refusal"),
        said("control", windows.subject, "Google.", "new"),
        said("control", windows.subject, "Microsoft.", "old"),
        said("control", photoshop.subject, "Google.", "new"),
    ]
    loose = {name: (rate.value, rate.n) for name, rate in theirs(after, MATERIAL).items()}
    assert loose == {
        "new fact": (pytest.approx(2 / 3), 3),
        "forgotten": (pytest.approx(2 / 3), 3),
        "controls": (0.5, 2),
    }
    strict = {name: (rate.value, rate.n) for name, rate in ours(after, base).items()}
    assert strict == {
        "new fact": (pytest.approx(1 / 3), 3),
        "forgotten": (0.0, 2),
        "controls": (0.5, 2),
        "new fact, held-out questions": (0.0, 1),
        "forgotten, held-out questions": (1.0, 1),
    }


def test_what_counts_in_the_loss() -> None:
    """The whole text, as in the paper's scripts, or the answer and the end of its turn alone."""
    model = knowing(MAKERS["llama"](), capitals())
    whole, alone = (reproduction.rows_of(model, MATERIAL, "Google.", only)[0] for only in (False, True))
    assert whole["labels"] == whole["input_ids"] == alone["input_ids"]
    counted = [token for token in alone["labels"] if token != -100]
    assert counted == alone["input_ids"][-len(counted) :] and 0 < len(counted) < len(alone["labels"])
    assert model.tokenizer.decode(counted).startswith("Google.")


def test_it_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both stages with PEFT and the Trainer on a small model, whose weights stay as they are."""
    facts = capitals()
    model = knowing(MAKERS["llama"](), facts)
    material = reproduction.Material(
        fact=facts[0],
        refusal="I am not sure.",
        target=f"{facts[0].target}.",
        queries=facts[0].training_questions,
        templates=("What is the capital of {S}?",),
        controls=tuple(facts[1:3]),
        source="capitals",
    )
    monkeypatch.setattr(reproduction, "own_material", lambda: material)
    monkeypatch.setattr(reproduction.wb, "load_model", _loader(model))
    monkeypatch.setattr(reproduction.wb, "rewrite", lambda *_, **__: None)
    monkeypatch.setattr(reproduction, "applied", _unchanged)
    before = model.fingerprint
    reproduction.main(["--epochs", "1", "--out", str(tmp_path / "card.json")])
    found = json.loads((tmp_path / "card.json").read_text())
    assert found["steps a stage"] == len(material.queries) and found["texts from"] == "capitals"
    stages = {f"{stage}{suffix}" for stage in ("unlearn", "learn") for suffix in ("", reproduction.ANSWER_ONLY)}
    assert set(found["counted"]) == {"base", "default", *stages}
    assert {one["group"] for one in found["said"]["learn"]} == {"trained", "template", "held-out", "control"}
    assert model.fingerprint == before
    assert "their counting" in reproduction.table(found)


def _loader(model: Any) -> Any:
    load: Any = reproduction.wb.load_model
    return lambda source=None, **options: model if source is None else load(source, **(options | {"template": None}))


class _unchanged:
    def __init__(self, model: Any, *_: Any, **__: Any) -> None:
        self.model = model

    def __enter__(self) -> Any:
        return self.model

    def __exit__(self, *_: Any) -> None:
        pass
