"""Control arms: fair draws, one mark to read at, differences by hand, and a model that stays as it was."""

from __future__ import annotations

import math
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
from tests.small_fits import assert_unchanged, recipe, same, unchanged
from tests.tiny_facts import MAKERS, capital, capitals, knowing
from workbench.editing import recipes
from workbench.editing.applied import Dial, applied
from workbench.editing.baselines import tune
from workbench.editing.fit import Cancelled, rewrite
from workbench.editing.selector import paper_selection
from workbench.evaluation import answering as answering_module
from workbench.evaluation import arms as arms_module
from workbench.evaluation.answering import Answering
from workbench.evaluation.arms import compare, everything_like, plan_arms
from workbench.evaluation.metrics import wilson
from workbench.evaluation.rates import rates_of
from workbench.models import LoadedModel
from workbench.tracing.attribution import attribute
from workbench.types import AnswerRow, ArmRow, ArmTable, Edit, EvalReport, FactSet, Selection, Step
from workbench.types.arms import ARMS, join_tables
from workbench.types.report import Group

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


def scripted(monkeypatch: pytest.MonkeyPatch, *accuracies: float) -> None:
    """Validation accuracies in the order in which they are looked at; afterwards the last one."""
    left = list(accuracies)
    monkeypatch.setattr(arms_module, "new_accuracy", lambda *a, **k: left.pop(0) if len(left) > 1 else left[0])


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
    table = compared(arms=[a for a in ARMS if not a.startswith("random")] + ["random"], model=model, fact=FRANCE)
    assert_unchanged(model, before)
    assert model.fingerprint == fingerprint
    counts = Counter(r.arm for r in table.rows)
    assert counts == {a: 3 if a.startswith("random") else 1 for a in ARMS}
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
    real = answering_module.generate

    def counting(model: LoadedModel, prompts: Any, **options: Any) -> Any:
        asked.extend(tuple(p) for p in prompts if not model.edited)
        return real(model, prompts, **options)

    monkeypatch.setattr(answering_module, "generate", counting)
    compared(arms=("selected", "full"))
    assert len(asked) == len(set(asked)) > 5


def test_the_default_selection_is_that_of_the_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms_module, "default_selection", lambda model, fact, **_: Selection(f"L2N{len(fact.subject)}"))
    table = compared(None, [FRANCE, SPAIN], arms=("selected", "none"))
    assert [str(r.selection) for r in table.rows] == ["L2N6", "None", "L2N5", "None"]


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


# Where an arm is read


def test_an_arm_is_read_at_the_first_step_that_reaches_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at after 2, 4, ... steps; the third look reaches it: what is reported is the edit of a fit of 6 steps."""
    scripted(monkeypatch, 0.5, 0.94, 0.95, 0.0)
    table = compared(arms=("selected",), recipe=recipe(steps=(2, 20)))
    (row,) = table.rows
    assert (row.step, row.reached, row.validation) == (6, True, 0.95)
    six = rewrite(tiny(), FRANCE, SELECTION, recipe=recipe(steps=(2, 6)), retain=RETAIN, progress=False)
    with applied(tiny(), six) as edited:
        for answer in (r for r in row.report.rows if r.stage == "learn" and r.form == "chat"):
            assert wb.ask(edited, answer.prompt) == answer.text


@pytest.mark.parametrize("arm", ["lora", "full"])
def test_a_baseline_is_read_at_the_mark_too(arm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 0.5, 1.0, 0.0)
    (row,) = compared(arms=(arm,), recipe=recipe(steps=(2, 20))).rows
    assert (row.step, row.reached, row.validation) == (4, True, 1.0)


def test_early_stop_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 0.0)
    steps: list[Step] = []
    compared(arms=("selected",), recipe=replace(QUICK, early_stop=1e-9), on_step=steps.append)
    assert Counter(s.stage for s in steps) == {"unlearn": 3, "learn": 6}


def test_an_arm_is_evaluated_as_it_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that averages its last steps gives the last step's gates, as an arm that is stopped on the way does."""
    scripted(monkeypatch, 0.0)
    looked: list[Edit] = []
    averaged = recipe(steps=(2, 6), average=3)
    monkeypatch.setattr(arms_module, "Dial", lambda model, edit: looked.append(edit) or Dial(model, edit))
    (row,) = compared(arms=("selected",), recipe=averaged).rows
    assert (row.reached, row.step) == (False, 6)
    last = rewrite(tiny(), FRANCE, SELECTION, recipe=recipe(steps=(2, 6)), retain=RETAIN, progress=False)
    assert same(looked[-1], last)
    assert not same(last, rewrite(tiny(), FRANCE, SELECTION, recipe=averaged, retain=RETAIN, progress=False))
    with applied(tiny(), last) as edited:
        for answer in (r for r in row.report.rows if r.stage == "learn" and r.form == "chat"):
            assert wb.ask(edited, answer.prompt) == answer.text


def test_answers_of_another_base_are_refused() -> None:
    other = Answering(tiny("gpt2"))
    with pytest.raises(ValueError, match="answers of another base"):
        compared(arms=("none",), answering=other)
    with pytest.raises(ValueError, match="answers of another base"):
        wb.evaluate(tiny(), FRANCE, pool=FACTS, answering=other, progress=False)


def test_a_retained_fact_is_no_control_under_another_id_either() -> None:
    held = [replace(fact, id=f"mine-{fact.id}") for fact in RETAIN]
    pool = FactSet([*FACTS, *(replace(f, id=f"{f.id}-twin", split="test", role="control") for f in RETAIN)])
    (row,) = compared(arms=("none",), retain=held, pool=pool).rows
    asked = {r.fact_id for r in row.report.rows if r.group in ("control", "neighbour")}
    assert asked and not any("twin" in name for name in asked)


def test_arms_that_never_reach_the_mark_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks: the selection reaches it at once; of three draws only the second does, at its last look."""
    scripted(monkeypatch, 1.0, *(0, 0, 0), *(0, 0, 1.0), 0.0)
    table = compared(arms=("selected", "random-anywhere"))
    assert [r.reached for r in table.rows] == [True, False, True, False]
    assert [r.step for r in table.rows] == [2, 5, 5, 5]
    assert [r.seed for r in table.runs("random-anywhere")] == [1]
    assert [r.seed for r in table.runs("random-anywhere", reached=False)] == [0, 2]
    assert list(table.summary().index) == ["the selection", "random, anywhere", "random, anywhere, not reached"]
    assert list(table.summary().runs) == ["1", "1", "2"]
    assert {(d.reached, d.runs, d.facts) for d in table.differences()} == {(1, 3, ("france-capital",))}
    assert "2 of 3 draws did not reach the new fact." in table.verdict
    none = by_hand(row("selected", [1], [0.1], reached=False), row("random-anywhere", [1], [0.1], 0, reached=False))
    assert "reached 95% new answers on validation questions on 0 of 1 fact(s)" in none.verdict
    assert "cannot tell: 1 of 1 draws did not reach the new fact, and no fact is left" in none.verdict


# Differences by hand


def report(control: list[int], kl: list[float]) -> EvalReport:
    """A report on controls that the base knows all; nothing else."""
    rows = []
    for stage in ("base", "learn"):
        for i, right in enumerate(control):
            label: Any = "old" if stage == "base" or right else "other"
            group: Group = "control"
            given = {"fact_id": f"c{i}", "relation": "r", "group": group, "stage": stage, "form": "chat"}
            moved = kl[i] if stage == "learn" else None
            rows.append(AnswerRow(**given, prompt="?", text="x", label=label, nll=1.0, kl=moved))  # type: ignore[arg-type]
    stages = ("base", "learn")
    return EvalReport(rows=tuple(rows), rates=rates_of(rows, stages, lambda _: False), stages=stages)


def row(
    arm: Any, control: list[int], kl: list[float], seed: Any = None, fact: str = "f", reached: Any = True
) -> ArmRow:
    given: dict[str, Any] = {"fact_id": fact, "arm": arm, "seed": seed, "reached": reached, "unit": "gates"}
    more: dict[str, Any] = {"step": 4, "updates": 6, "validation": 1.0, "trained": 7, "recipe": "r", "seconds": 0.5}
    return ArmRow(**given, **more, report=report(control, kl), selection=Selection("L0H1"))


def by_hand(*rows: ArmRow, fingerprint: str = "m") -> ArmTable:
    validation = {r.fact_id: ("Q?",) for r in rows}
    return ArmTable(rows=rows, threshold=0.95, validation=validation, provenance={"fingerprint": fingerprint})


def test_the_paired_difference_of_one_fact_by_hand() -> None:
    """Four controls, of which every other one is lost by one draw less: 2/3 and 1 per control, 5/6 +- 3.182 times the
    standard error, root of (4 / 36 / 3) / 4, and no more than 1. The draw that did not reach the fact would have made
    it less."""
    table = by_hand(
        row("selected", [1] * 4, [0.1, 0.2] * 2),
        row("random-layers", [0] * 4, [0.4, 0.3] * 2, seed=0),
        row("random-layers", [0] * 4, [0.4, 0.3] * 2, seed=1),
        row("random-layers", [1, 0] * 2, [0.4, 0.3] * 2, seed=2),
        row("random-layers", [1] * 4, [9.0] * 4, seed=3, reached=False),
    )
    found = {d.outcome: d for d in table.differences()}
    rate = found["control"].rate
    assert (rate.value, rate.low, rate.high) == pytest.approx((5 / 6, 5 / 6 - 3.182446 * math.sqrt(1 / 108), 1))
    assert (rate.n, rate.clusters, found["control"].sign) == (4, 4, 1)
    rate = found["kl"].rate
    assert (rate.value, rate.low, rate.high) == pytest.approx((-0.2, -0.3837, -0.0163), abs=1e-4)
    assert found["kl"].sign == -1
    assert "same layers: the selection kept more controls (+0.833 [+0.527, +1.000], 4 pairs)." in table.verdict
    assert "It moved other answers less (KL on controls -0.200 [-0.384, -0.016] nats per token)." in table.verdict
    assert "1 of 4 draws did not reach the new fact." in table.verdict
    assert "Against random, anywhere: not run" in table.verdict


def test_either_sign_is_a_finding() -> None:
    table = by_hand(
        row("selected", [0] * 4, [0.4, 0.3] * 2),
        *(row("random-anywhere", [1, 1 if s else 0] * 2, [0.1, 0.2] * 2, seed=s) for s in range(3)),
    )
    assert "anywhere: the selection kept fewer controls (-0.833 [-1.000, -0.527]" in table.verdict
    assert "It moved other answers more (KL on controls +0.200" in table.verdict


def test_an_interval_that_holds_0_cannot_tell() -> None:
    """Differences of 1 and 0, so two controls tell nothing. Equal differences of the KL have no interval at all."""
    draws = [row("random-layers", [0, 1], [0.2, 0.2], seed=s) for s in range(3)]
    table = by_hand(row("selected", [1, 1], [0.1, 0.1]), *draws)
    found = {d.outcome: d for d in table.differences()}
    assert (found["control"].rate.low, found["control"].rate.high, found["control"].sign) == (-1, 1, 0)
    assert math.isnan(found["kl"].rate.low)
    assert "cannot tell which keeps more controls: the interval holds 0 (+0.500 [-1.000, +1.000]" in table.verdict
    assert "Cannot tell which moves other answers more (KL on controls -0.100 [" in table.verdict


def test_several_facts_are_resampled_whole() -> None:
    """Differences of 1 on all controls of one fact and of 0 on those of the other: nothing is known, however many
    controls. A fact on which the selection did not reach the mark does not count."""
    rows = []
    for fact, right, reached in (("f", 0, True), ("g", 1, True), ("h", 0, False)):
        rows.append(row("selected", [1] * 9, [0.1] * 9, fact=fact, reached=reached))
        rows += [row("random-layers", [right] * 9, [0.1] * 9, fact=fact, seed=s) for s in range(3)]
    table = by_hand(*rows)
    one = next(d for d in table.differences() if d.outcome == "control")
    assert one.facts == ("f", "g")
    assert (one.rate.value, one.rate.low, one.rate.high, one.rate.clusters) == (0.5, -1, 1, 2)
    rate = table.rate("random-layers", "control")
    assert (rate.value, rate.clusters) == (pytest.approx(1 / 3), 3)
    assert "on 2 of 3 fact(s)" in table.verdict
    assert "18 pairs on 2 of 3 edited facts" in table.verdict
    assert "on one fact only" not in table.verdict
    left = by_hand(*(r for r in rows if r.fact_id != "g"))
    assert "9 pairs on 1 of 2 edited facts" in left.verdict and "were read on one fact only" in left.verdict


def test_a_fact_that_random_draws_seldom_reach_weighs_as_much_as_another() -> None:
    """Three draws reach the one fact and lose nothing, one reaches the other and loses all of its controls: half."""
    rows = [row("selected", [1] * 4, [0.1] * 4, fact=fact) for fact in "fg"]
    rows += [row("random-layers", [1] * 4, [0.1] * 4, fact="f", seed=s) for s in range(3)]
    rows += [row("random-layers", [0] * 4, [0.1] * 4, fact="g", seed=s, reached=s == 1) for s in range(3)]
    table = by_hand(*rows)
    found = next(d for d in table.differences() if d.outcome == "control")
    assert found.rate.value == 0.5
    assert (found.reached, found.runs) == (4, 6)
    assert table.rate("random-layers", "control").value == 0.5


def test_the_kl_that_decides_is_over_controls() -> None:
    """A neighbour that is no control moves far under one arm: a report's own KL tells, the outcome does not."""
    table = by_hand(row("selected", [1, 1], [0.1, 0.1]), row("random-layers", [1, 1], [0.1, 0.1], seed=0))
    given: dict[str, Any] = {"relation": "r", "group": "neighbour", "form": "chat", "prompt": "?", "text": "x"}
    near = [
        AnswerRow(fact_id="near", stage=stage, label="old", nll=1.0, kl=kl, **given)
        for stage, kl in (("base", None), ("learn", 5.0))
    ]
    of = table.rows[0].report
    both = [*of.rows, *near]
    moved = replace(of, rows=tuple(both), rates=rates_of(both, of.stages, lambda _: False))
    assert moved.rate("kl").value == pytest.approx(5.2 / 3)
    changed = replace(table, rows=(replace(table.rows[0], report=moved), table.rows[1]))
    assert changed.rows[0].rate("kl").value == pytest.approx(0.1) == changed.rate("selected", "kl").value
    assert next(d for d in changed.differences() if d.outcome == "kl").rate.value == pytest.approx(0)


def test_few_questions_are_named() -> None:
    """One validation question and none that is reported: the verdict says that one answer weighs much."""
    table = by_hand(row("selected", [1] * 4, [0.1] * 4))
    assert (
        "f: of its held-out questions only 1 decide where its arms are read and only 0 of the reported" in table.verdict
    )
    assert "decide where" not in replace(table, validation={"f": ("a?",) * 4}).verdict


def test_one_runs_rate_is_its_reports() -> None:
    table = by_hand(row("selected", [1, 1, 0, 1], [0.1] * 4), row("none", [1] * 4, [0.0] * 4, reached=None))
    assert table.rate("selected", "control") == table.rows[0].report.rate("control")
    assert table.rate("selected", "control").value == 0.75
    assert table.rate("none", "control").low == pytest.approx(wilson(4, 4).low)
    assert {d.arm for d in table.differences()} == set()
    with pytest.raises(KeyError, match=r"No arm 'lora' in this table; there are \['selected', 'none'\]"):
        table.runs("lora")


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


def test_a_tuned_model_is_refused() -> None:
    tuned = tune(tiny(), FRANCE, Selection("L1H2"), "lora", recipe=QUICK, retain=RETAIN, progress=False)
    with pytest.raises(ValueError, match="carries an edit already"):
        compared(model=tuned.model)


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


# Files and pictures


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


def test_tables_are_joined_by_fact() -> None:
    one, two = by_hand(row("selected", [1], [0.1])), by_hand(row("selected", [1], [0.1], fact="g"))
    assert join_tables([one, two]).facts == ("f", "g")
    with pytest.raises(ValueError, match=r"in one table only; these are in several: \['selected of f'\]"):
        join_tables([one, one])
    drawn = by_hand(row("random-layers", [1], [0.1], seed=0), row("random-layers", [0], [0.1], seed=1))
    both = join_tables([drawn, one])
    assert both.arms == ("selected", "random-layers") and len(both.differences()) > 0
    with pytest.raises(ValueError, match="Tables of 'f' must have the same validation questions"):
        join_tables([one, replace(drawn, validation={"f": ("Another?",)})])
    with pytest.raises(ValueError, match="must have the same model"):
        join_tables([one, by_hand(row("selected", [1], [0.1], fact="g"), fingerprint="other")])
    other = replace(two, provenance={**two.provenance, "settings": {"read_every": 7}})
    with pytest.raises(ValueError, match="must have the same settings"):
        join_tables([one, other])
    with pytest.raises(ValueError, match="at least one table"):
        join_tables([])


def test_figure_and_page(tmp_path: Path) -> None:
    table = by_hand(
        row("selected", [1, 0], [0.1, 0.2], fact="<b>f"),
        *(row("random-layers", [0, 1], [0.4, 0.3], seed=s, fact="<b>f", reached=s > 0) for s in range(3)),
    )
    figure = table.plot()
    labels = list(figure.layout.yaxis.ticktext)
    assert labels == ["random, same layers, not reached", "random, same layers (2)", "the selection"]
    assert "the selection: controls 0.50" in figure.layout.meta["alt"]
    assert "<b>f" not in figure.to_json().replace("&lt;b&gt;f", "")
    page = table.write_html(tmp_path / "arms.html").read_text()
    assert "Against random, same layers" in page
    assert "<b>f" not in page
    assert "<table" in table._repr_html_()
    assert "random, same layers" in table._repr_html_()
