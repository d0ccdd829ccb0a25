"""Control arms: every one, fair draws, what is refused, and a model that stays as it was."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.small_fits import assert_unchanged, recipe, unchanged
from tests.helpers.tiny_facts import MAKERS, capital, capitals, knowing
from workbench.comparing import runs as runs_module
from workbench.comparing.arms import ARMS, everything_like, plan_arms
from workbench.comparing.compare import compare
from workbench.editing.applied import applied
from workbench.editing.methods import table as recipes
from workbench.editing.rewrite import rewrite
from workbench.editing.selector import paper_selection
from workbench.evaluation.answering import Answering
from workbench.language import generation
from workbench.models.load import LoadedModel
from workbench.tracing.attribution import attribute
from workbench.types import ArmRow, ArmTable, FactSet, Selection
from workbench.types.cancelling import Cancelled

FACTS = capitals()
HELDOUT = ("Where is the capital of France?", "What city is capital?", "What is France?", "Who is the capital?")
FRANCE = replace(FACTS[0], heldout=HELDOUT)
SPAIN = FACTS[2]
RETAIN = FACTS.filter(role="retain")
SELECTION = "L1H2 L1H3 L2N5 L2N6 L2N7"
QUICK = recipe(steps=(2, 5))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setitem(recipes.RECIPES, "paper", replace(recipes.RECIPES["paper"], steps=(2, 3)))


@lru_cache
def tiny(family: str = "llama") -> LoadedModel:
    return knowing(MAKERS[family](), FACTS)


def compared(selection: Any = SELECTION, fact: Any = FRANCE, **options: Any) -> ArmTable:
    given: dict[str, Any] = {"recipe": QUICK, "retain": RETAIN, "pool": FACTS, "progress": False}
    return compare(options.pop("model", None) or tiny(), fact, selection, **{**given, **options})


# Every arm


@pytest.mark.parametrize("family", ["gpt2", "phi3"])
def test_other_families(family: str) -> None:
    """Fused projections, transposed weights: every way to train works there too, and leaves the model alone."""
    before = unchanged(tiny(family))
    table = compared("L1H2 L2N5 L1K0", model=tiny(family), arms=("selected", "full", "lora"))
    assert_unchanged(tiny(family), before)
    assert all(r.rate("kl").value > 0 for r in table.rows)


def test_every_arm_runs_and_the_model_stays_as_it_was() -> None:
    model = tiny()
    before = unchanged(model)
    fingerprint = model.fingerprint
    asked_for = [a for a in ARMS if a != "other-relations"]  # of one relation there are no others to retain
    table = compared(arms=[a for a in asked_for if not a.startswith("random")] + ["random"], model=model, fact=FRANCE)
    assert_unchanged(model, before)
    assert model.fingerprint == fingerprint
    counts = Counter(r.arm for r in table.rows)
    assert counts == {a: 3 if a.startswith("random") else 1 for a in asked_for}
    asked = [{(r.group, r.prompt) for r in row.report.rows if r.stage == row.report.stages[-1]} for row in table.rows]
    assert all(one == asked[0] for one in asked)
    assert {prompt for group, prompt in asked[0] if group == "heldout"} == set(HELDOUT[1::2])  # the others decide
    gates = 2 * model.shape.d_head + 3
    for row in table.rows:
        if row.arm in ("selected", "random-layers", "random-anywhere", "one-stage"):
            assert (row.trained, row.unit) == (gates, "gates")
        assert row.report.stages == (("base",) if row.arm == "none" else ("base", "learn"))
    kls = [r.rate("kl").value for r in table.rows if r.arm != "none"]
    assert all(kl > 0 for kl in kls) and len(set(kls)) == len(kls)  # each did something, and something else
    steps = {r.arm: r.step for r in table.rows}
    assert (steps["selected"], steps["one-stage"], steps["none"], steps["paper"]) == (5, 7, 0, 3)
    updates = {r.arm: r.updates for r in table.rows}
    assert (updates["selected"], updates["one-stage"], updates["none"], updates["paper"]) == (7, 7, 0, 5)
    assert table.summary().updates["the selection, not reached"] == "7"
    papers = next(r for r in table.rows if r.arm == "paper")
    assert papers.selection == paper_selection(model, FRANCE, pool=FACTS, progress=False), (
        "its own modules, not the selection's"
    )
    assert any(note.startswith("The paper's recipe was looked at every 2 steps") for note in table.notes)
    assert {r.reached for r in table.rows if r.arm == "none"} == {None}
    assert table.rate("none", "control").value == 1
    shape = model.shape
    assert table.runs("all", reached=False)[0].trained == shape.n_layers * (shape.n_heads * shape.d_head + shape.d_mlp)


def test_the_base_is_asked_once_for_all_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    real = generation.generate

    def counting(model: LoadedModel, prompts: Any, **options: Any) -> Any:
        asked.extend(tuple(p) for p in prompts if not model.edited)
        return real(model, prompts, **options)

    monkeypatch.setattr(generation, "generate", counting)
    tiny().cache.clear()
    compared(arms=("selected", "full"))
    assert len(asked) == len(set(asked)) > 5


def test_the_default_selection_is_that_of_the_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "default_selection", lambda model, fact, **_: Selection(f"L2N{len(fact.subject)}"))
    table = compared(None, [FRANCE, SPAIN], arms=("selected", "none"))
    assert [str(r.selection) for r in table.rows] == ["L2N6", "None", "L2N5", "None"]


def test_facts_that_chose_the_selection_are_no_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "default_selection", lambda *_, **__: Selection("L2N1"))
    monkeypatch.setattr(runs_module, "selection_facts", lambda *_, **__: FACTS.filter(ids=["italy-capital"]))
    chosen, given = compared(None, FRANCE, arms=("none",)), compared("L2N1", FRANCE, arms=("none",))
    for table, there in ((chosen, False), (given, True)):
        assert ("italy-capital" in {row.fact_id for row in table.rows[0].report.rows}) is there
        assert any("not a localisation" in note for note in table.notes) is not there


def test_a_retained_fact_is_no_control_under_another_id_either() -> None:
    held = [replace(fact, id=f"mine-{fact.id}") for fact in RETAIN]
    pool = FactSet([*FACTS, *(replace(f, id=f"{f.id}-twin", split="test", role="control") for f in RETAIN)])
    (row,) = compared(arms=("none",), retain=held, pool=pool).rows
    asked = {r.fact_id for r in row.report.rows if r.group in ("control", "neighbour")}
    assert asked and not any("twin" in name for name in asked)


# Random draws

KINDS = "L1H2 L1H3 L0H1 L2N5 L2N6 L2N7 L0N9 L1K0 L2MLP"


def test_random_draws_have_the_same_kinds_and_counts() -> None:
    selection = Selection(KINDS)
    plans, notes = plan_arms(tiny(), selection, ["random-anywhere"], QUICK, range(12))
    assert notes == []
    assert [p.seed for p in plans] == list(range(12))
    for plan in plans:
        assert plan.selection is not None
        assert Counter(c.kind for c in plan.selection) == Counter(c.kind for c in selection)
        assert not plan.selection & selection  # a draw that shared components would be part of what it controls for
    assert len({str(p.selection) for p in plans}) == 12


def test_draws_from_the_same_layers_keep_the_count_of_each_layer() -> None:
    selection = Selection(KINDS) - Selection("L2MLP")
    plans, _ = plan_arms(tiny(), selection, ["random-layers"], QUICK, range(12))
    for plan in plans:
        assert plan.selection is not None
        assert Counter((c.kind, c.layer) for c in plan.selection) == Counter((c.kind, c.layer) for c in selection)
        assert not plan.selection & selection
        assert plan.selection.n_parameters(tiny()) == selection.n_parameters(tiny())
    assert len({str(p.selection) for p in plans}) == 12


def test_what_cannot_be_drawn_is_said_or_refused() -> None:
    plans, notes = plan_arms(tiny(), Selection("L2MLP L1ATTN"), ["selected", "random"], QUICK, range(3))
    assert [p.arm for p in plans] == ["selected", *["random-anywhere"] * 3]
    assert len(notes) == 1
    assert notes[0].startswith("random-layers was not run. Cannot draw 1 other components of kind 'MLP' from layer 2")
    with pytest.raises(ValueError, match="Cannot draw 1 other components of kind 'MLP' from layer 2"):
        compared("L2MLP", arms=("selected", "random-layers"))
    assert compared(arms="none").arms == ("none",)
    table = compared("L2MLP", arms=("random", "none"))
    assert table.notes[0] in table.verdict
    assert "Against random, same layers: not run" in table.verdict


def test_of_a_mixed_selection_what_can_be_drawn_is_drawn() -> None:
    """Two heads and an MLP: the MLP of a layer is one of a kind and stays, the heads are others of the same layers."""
    selection = Selection("L1H2 L0H1 L2MLP")
    plans, notes = plan_arms(tiny(), selection, ["random"], QUICK, range(3))
    assert Counter(p.arm for p in plans) == {"random-layers": 3, "random-anywhere": 3}
    for plan in plans:
        assert plan.selection is not None
        if plan.arm == "random-layers":
            assert plan.selection & selection == Selection("L2MLP")
            assert Counter((c.kind, c.layer) for c in plan.selection) == Counter((c.kind, c.layer) for c in selection)
        else:
            assert not plan.selection & selection
    assert notes == ["random-layers: L2MLP stay in every draw, as their layers have one of that kind."]


def test_papers_modules_where_nothing_can_be_attributed() -> None:
    """The base does not say the answer, so the paper's modules cannot be located: a note, and the others run."""
    stranger = replace(FRANCE, id="stranger", answer="Oslo")
    table = compared(fact=stranger, arms=("none", "paper"))
    assert table.arms == ("none",)
    assert table.notes[0].startswith("paper was not run: its modules are located by attribution.")


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_the_papers_modules(family: str) -> None:
    """Three MLPs, with their gate and up projections where there are any, and two layers' attention."""
    found = paper_selection(tiny(family), FRANCE, pool=FACTS, progress=False)
    kinds = Counter(c.kind for c in found)
    assert kinds == {"MLP": 3, "ATTN": 2} | ({} if family == "gpt2" else {"GATEUP": 3})
    effect = attribute(tiny(family), FRANCE, unit="head", pool=FACTS, progress=False).values.sum(1)
    assert {c.layer for c in found if c.kind == "ATTN"} == set(effect.argsort(descending=True)[:2].tolist())


def test_everything_of_the_same_kinds() -> None:
    every = everything_like(tiny(), Selection("L2N5 L0N1 L1V1"))
    assert str(every) == "L0MLP L1MLP L2MLP L0V0 L0V1 L1V0 L1V1 L2V0 L2V1"


# Stopping


def crash() -> None:
    raise RuntimeError("the panel is gone")


@pytest.mark.parametrize("arm", ["selected", "full", "lora"])
@pytest.mark.parametrize(("how", "error"), [(lambda: False, Cancelled), (crash, RuntimeError)])
def test_a_stopped_arm_leaves_the_model_as_it_was(arm: Any, how: Callable[[], Any], error: type[Exception]) -> None:
    before = unchanged(tiny())
    with pytest.raises(error):
        compared(arms=(arm,), on_step=lambda s: how() if (s.stage, s.step) == ("learn", 1) else None)
    assert_unchanged(tiny(), before)
    assert torch.is_grad_enabled()


def test_cancelling_between_arms_keeps_what_is_done() -> None:
    done: list[ArmRow] = []
    flag = threading.Event()
    with pytest.raises(Cancelled, match="before the arm 'random-anywhere'"):
        compared(arms=("none", "random-anywhere"), on_arm=lambda r: (done.append(r), flag.set())[1], cancel=flag)
    assert [r.arm for r in done] == ["none"]
    with pytest.raises(Cancelled, match="by on_arm after the arm 'none'"):
        compared(arms=("none", "selected"), on_arm=lambda r: False)


# Bad input


def test_an_edited_model_is_refused() -> None:
    edit = rewrite(tiny(), FRANCE, "L1H2", recipe=QUICK, retain=RETAIN, progress=False)
    with applied(tiny(), edit) as edited, pytest.raises(ValueError, match="carries an edit already"):
        compared(model=edited)


def test_answers_of_another_base_are_refused() -> None:
    other = Answering(tiny("gpt2"))
    with pytest.raises(ValueError, match="answers of another base"):
        compared(arms=("none",), answering=other)
    with pytest.raises(ValueError, match="answers of another base"):
        wb.evaluate(tiny(), FRANCE, pool=FACTS, answering=other, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arms": ("selected", "magic")}, "arms must be some of .*'one-stage'.*'random'.*got .*'magic'"),
        ({"arms": ()}, "arms must be some of"),
        ({"arms": ("random", "random-layers")}, "each once"),
        ({"selection": ""}, "The selection is empty"),
        ({"selection": "L9H1"}, "L9H1 does not exist"),
        ({"seeds": 2}, r"at least 3 different draws .*got \[0, 1\]"),
        ({"seeds": (1, 1, 2)}, r"at least 3 different draws"),
        ({"recipe": "unlearn-only"}, "read in the learn stage, but the recipe 'unlearn-only'"),
        ({"recipe": "magic"}, "Unknown recipe 'magic'"),
        ({"threshold": 0}, r"threshold must be in \(0, 1\], got 0"),
        ({"read_every": 0}, "read_every must be 1 or more, got 0"),
        ({"fact": []}, "at least one fact"),
        ({"fact": [FRANCE, FRANCE]}, r"came more often: \['france-capital'\]"),
        ({"fact": capital("France", "Paris", "Paris Rome")}, "start with the same token"),
        ({"retain": [FRANCE]}, "retain set overlaps"),
        ({"controls": [RETAIN[0]]}, "controls= overlaps"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compared(**options)


def test_a_one_stage_recipe_has_no_one_stage_arm() -> None:
    table = compared(arms=("one-stage", "none"), recipe=recipe(stages=("learn",), steps=2))
    assert table.arms == ("none",)
    assert "has one stage already" in table.notes[0]


# Files


def test_save_and_load(tmp_path: Path) -> None:
    table = compared(fact=[FRANCE, SPAIN], arms=("selected", "full", "none"))
    assert table.facts == ("france-capital", "spain-capital")
    path = table.save(tmp_path / "arms.json")
    again = ArmTable.load(path)
    assert again.verdict == table.verdict
    assert again.to_frame().equals(table.to_frame())
    assert again.summary().equals(table.summary())
    assert (again.validation, again.notes, again.threshold) == (table.validation, table.notes, table.threshold)
    assert [r.selection for r in again.rows] == [r.selection for r in table.rows]
    assert [r.report.rows for r in again.rows] == [r.report.rows for r in table.rows]
    assert again.provenance == table.provenance
    path.write_text(path.read_text().replace('"threshold": 0.95', '"threshold": 0.90'))
    with pytest.raises(ValueError, match="fails its own checksum"):
        ArmTable.load(path)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        ArmTable.load(tmp_path / "nothing.json")
