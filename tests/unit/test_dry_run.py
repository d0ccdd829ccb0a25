"""Dry runs: what would be written, and how far it would reach, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.panels import FACTS, FRANCE, tiny
from workbench.editing.dry_run import dry_run
from workbench.editing.solved.keys import keys_at
from workbench.editing.solved.places import question_contexts
from workbench.editing.solved.spots import Place
from workbench.types import GateDelta, LowRankDelta
from workbench.types.dry_run import DryRun, Reach
from workbench.types.write import Write

QUIET: dict[str, Any] = {"pool": FACTS, "progress": False}
ROME = wb.recipes.ROME(layers=(1,), steps=3, covariance="identity", clozes=False)
MEMIT = wb.recipes.MEMIT(layers=(1,), steps=3, covariance="identity", clozes=False)


def plan_of(**fields: Any) -> DryRun:
    """A dry run with these fields."""
    reach = (
        Reach(fact_id="a", group="edited", change=0.4, opening=1.0),
        Reach(fact_id="b", group="neighbour", change=0.1, opening=0.25),
        Reach(fact_id="c", group="neighbour", change=0.3, opening=0.75),
    )
    given: dict[str, Any] = {
        "facts": ("a",),
        "method": "ROME",
        "selection": wb.Selection("L1MLP"),
        "selector": "given",
        "moves": "rank 1 added to 1 module",
        "reach": reach,
    }
    return DryRun(**{**given, **fields})


def test_a_closed_form_is_solved_and_its_change_is_that_of_the_edit() -> None:
    model = tiny()
    plan = dry_run(model, FRANCE, recipe=ROME, **QUIET)
    edit = wb.rewrite(model, FRANCE, recipe=ROME, **QUIET)
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta)
    (u, v) = next(iter(delta.factors.values()))
    place = Place(1, "mlp")
    weight = model.hf.get_parameter("model.layers.1.mlp.down_proj.weight").detach().double()
    for reach in plan.reach:
        fact = FACTS[reach.fact_id]
        keys = keys_at(model, question_contexts(model, [fact]), [place])[place]
        by_hand = (u.double() @ v.double() @ keys.T).norm(dim=0) / (weight @ keys.T).norm(dim=0)
        assert reach.change == pytest.approx(float(by_hand.mean()), rel=1e-6)
    assert plan.writes == edit.writes and plan.known and plan.of("edited")[0].opening == pytest.approx(1.0)
    assert {"edited", "neighbour"} <= set(plan.groups)


def test_gates_that_may_move_are_weighed_by_what_they_carry() -> None:
    model = tiny()
    plan = dry_run(model, FRANCE, "L1N2 L1N5", **QUIET)
    place = Place(1, "mlp")
    weight = model.hf.get_parameter("model.layers.1.mlp.down_proj.weight").detach().double()
    sizes = {}
    for reach in plan.reach:
        keys = keys_at(model, question_contexts(model, [FACTS[reach.fact_id]]), [place])[place]
        carried = [(weight[:, j].norm() * keys[:, j]).square() for j in (2, 5)]
        sizes[reach.fact_id] = float(torch.stack(carried).sum(0).sqrt().mean())
    for reach in plan.reach:
        assert reach.opening == pytest.approx(sizes[reach.fact_id] / sizes[FRANCE.id], rel=1e-6)
        assert math.isnan(reach.change)
    assert not plan.known and plan.writes == () and plan.moves == "2 gates may move"
    assert "random directions are assumed" in plan.words


def test_the_reach_of_an_edit_that_was_made_is_that_of_its_gates() -> None:
    model = tiny()
    recipe = wb.Recipe(steps=2, optimiser="adam", draw_back=None, early_stop=None, retain_size=2)
    edit = wb.rewrite(model, FRANCE, "L1N2 L1N5", recipe=recipe, **QUIET)
    delta = edit.delta()
    assert isinstance(delta, GateDelta)
    gate = delta.gates[1, "post"].double()
    plan = dry_run(model, edit, **QUIET)
    weight = model.hf.get_parameter("model.layers.1.mlp.down_proj.weight").detach().double()
    for reach in plan.reach:
        keys = keys_at(model, question_contexts(model, [FACTS[reach.fact_id]]), [Place(1, "mlp")])[Place(1, "mlp")]
        by_hand = ((keys * (gate - 1)) @ weight.T).norm(dim=1) / (keys @ weight.T).norm(dim=1)
        assert reach.change == pytest.approx(float(by_hand.mean()), rel=1e-6) and reach.change > 0
    with pytest.raises(ValueError, match="has its selection and recipe"):
        dry_run(model, edit, "L1N2", **QUIET)


def test_a_module_counts_by_what_it_writes() -> None:
    """A wide opening of a module that writes next to nothing reaches nobody."""
    model = tiny()
    edit = wb.rewrite(model, FRANCE, recipe=replace(MEMIT, layers=(0, 1)), **QUIET)
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta)
    sums = {}
    plan = dry_run(model, edit, **QUIET)
    for reach in plan.reach:
        contexts = question_contexts(model, [FACTS[reach.fact_id]])
        added = [
            (keys_at(model, contexts, [Place(layer, "mlp")])[Place(layer, "mlp")] @ v.double().T @ u.double().T)
            for (layer, _), (u, v) in delta.factors.items()
        ]
        sums[reach.fact_id] = sum(float(each.norm(dim=1).mean()) for each in added)
    assert len(delta.factors) == 2 and len(plan.reach) > 2
    for reach in plan.reach:
        assert reach.opening == pytest.approx(sums[reach.fact_id] / sums[FRANCE.id], rel=1e-6)


def test_what_moves_everything_has_no_reach_before_it_is_trained() -> None:
    plan = dry_run(tiny(), FRANCE, recipe="full", **QUIET)
    assert plan.reach == () and "nothing is known before" in plan.notes[0]


@pytest.mark.parametrize(
    ("selection", "recipe", "words"),
    [
        (None, wb.recipes.FullFineTuning(), "all weights of all layers may move"),
        ("L1H2", wb.recipes.FullFineTuning(), "all weights of layer 1 may move"),
        ("L0H2 L2N3", wb.recipes.FullFineTuning(), "all weights of layers 0, 2 may move"),
        (None, wb.recipes.LoRA(), "low-rank updates of 21 modules may move"),
        (None, wb.recipes.WISE(layer=0, density=1.0), "2,352 weights beside L0 mlp.down_proj may move"),
        ("L1N3 L1N5", wb.recipes.WISE(density=1.0), "84 weights beside L1 mlp.down_proj may move"),
        ("L1H2", wb.recipes.GRACE(), "a codebook beside L1 self_attn.o_proj may get values"),
        (3, wb.recipes.KLUE(), "Neurons by regularised attribution"),
    ],
)
def test_what_has_no_reach_before_it_is_trained_says_what_moves(selection: Any, recipe: Any, words: str) -> None:
    """Whole layers where whole layers move, and no reach of one head's columns."""
    plan = dry_run(tiny(), FRANCE, selection, recipe=recipe, **QUIET)
    assert plan.moves == words and plan.reach == () and "nothing is known before" in plan.notes[0]


@pytest.mark.parametrize(
    ("selection", "recipe", "words", "chosen"),
    [
        ("L1H2", wb.recipes.RMU(layer=2), "weight columns of 1 component may move", "L1H2"),
        (None, wb.recipes.RMU(layer=1), "weight columns of L0MLP, L1MLP may move", "L0MLP L1MLP"),
        (None, wb.recipes.KUDA(layer=0), "weight columns of L0MLP may move", "L0MLP"),
        ("L1ATTN", wb.recipes.KLUE(), "weight columns of 1 component may move", "L1ATTN"),
        ("L1N2 L1N5", wb.recipes.KLUE(moves="gates"), "2 gates may move", "L1N2 L1N5"),
    ],
)
def test_the_layers_that_a_recipe_names_are_those_that_may_move(
    selection: Any, recipe: Any, words: str, chosen: str
) -> None:
    plan = dry_run(tiny(), FRANCE, selection, recipe=recipe, **QUIET)
    assert plan.moves == words and plan.selection == wb.Selection(chosen)
    assert not plan.known and plan.of("edited")[0].opening == pytest.approx(1.0) and plan.notes == ()


def test_a_lora_of_whole_modules_reaches_as_far_as_these() -> None:
    def planned(selection: str, **settings: Any) -> tuple[str, float]:
        plan = dry_run(tiny(), FRANCE, selection, recipe=wb.recipes.LoRA(**settings), **QUIET)
        return plan.moves, plan.mean_opening("control")

    head, heads, mlp = planned("L1H2"), planned("L1H0 L1H1 L1H2 L1H3 L1H4 L1H5"), planned("L1MLP")
    assert head[0] == heads[0] == "low-rank updates of 1 module may move" and head[1] != heads[1]
    assert planned("L1H2", restrict=False) == heads
    assert planned("L1H2 L1MLP", budget=1) == mlp and planned("L1H2 L1MLP")[0].startswith("low-rank updates of 2")


@pytest.mark.parametrize("recipe", [wb.recipes.UltraEdit(layers=(1,)), wb.recipes.InContext()])
def test_what_takes_no_steps_is_made(recipe: Any) -> None:
    plan = dry_run(tiny(), FRANCE, recipe=recipe, **QUIET)
    edit = wb.rewrite(tiny(), FRANCE, recipe=recipe, **QUIET)
    assert plan.known and (plan.moves, plan.selection) == (edit.delta().words(), edit.selection)
    assert bool(plan.reach) == isinstance(edit.delta(), LowRankDelta)


def test_a_trained_method_that_does_not_say_what_it_moves_has_no_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wb.recipes.METHODS, "lora", replace(wb.recipes.METHODS["lora"], plan=None))
    with pytest.raises(ValueError, match=r"LoRA does not say what it would move, .* Give its row .* a plan"):
        dry_run(tiny(), FRANCE, recipe="lora", **QUIET)


def test_facts_that_are_reached_widely_are_named() -> None:
    (warning,) = plan_of().warnings
    assert warning.startswith("1 of 2 neighbours (facts of the same relation) are reached at least 0.5 times")
    assert "c (0.75)" in warning
    assert plan_of().mean_opening("neighbour") == 0.5 and math.isnan(plan_of().mean_opening("control"))
    assert "neighbour 0.50 (n=2)" in plan_of().words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"denominator": 3.0, "covariance_rank": 56}, "hardly see the subject (denominator 3"),
        ({"denominator": 56.0, "relative_norm": 0.4}, "0.4 times as large as the weight itself"),
        (
            {"denominator": 56.0, "covariance_rank": 56, "tokens": 100},
            "measured on 100 tokens; for 56 directions at least 560",
        ),
    ],
)
def test_what_is_written_is_warned_of(fields: dict[str, Any], words: str) -> None:
    write = Write(layer=1, module="mlp", name="mlp.down_proj", **fields)
    (warning,) = plan_of(writes=(write,), reach=()).warnings
    assert words in warning and warning.startswith("L1 mlp.down_proj")


def test_small_denominators_of_a_closed_update_are_no_warning() -> None:
    """Its metric holds the keys of the very subject."""
    write = Write(layer=1, module="mlp", name="mlp.down_proj", denominator=3.0, covariance_rank=56)
    assert plan_of(writes=(write,), reach=()).warnings
    closed = plan_of(writes=(write,), reach=(), closed_relations=("country-language", "country-sport"))
    assert closed.warnings == () and "Closed for 2 other relations of the subject." in closed.words


def test_few_columns_are_measured_by_their_own_number() -> None:
    write = Write(layer=1, module="mlp", name="m", columns=(1, 2, 3, 4), denominator=0.45, covariance_rank=56)
    assert plan_of(writes=(write,), reach=()).warnings == ()
    (warning,) = plan_of(writes=(replace(write, denominator=0.3),), reach=()).warnings
    assert "an ordinary token has about 4)" in warning


def test_facts_that_the_edit_spared_say_nothing_of_others() -> None:
    recipe = wb.recipes.ROME(layers=(1,), steps=2, covariance="identity", clozes=False, retain_size=2)
    retained = FACTS.filter(role="retain")
    assert len(retained) > 0
    plan = dry_run(tiny(), FRANCE, recipe=recipe, **QUIET)
    edit = wb.rewrite(tiny(), FRANCE, recipe=recipe, **QUIET)
    looked_at = {reach.fact_id for reach in plan.reach} - {FRANCE.id}
    assert looked_at and not looked_at & {*edit.used_ids, *retained.ids}
    pool = FACTS.filter(lambda f: f.role != "retain")
    spared = next(f for f in pool if f.id in looked_at)
    seen = dry_run(tiny(), replace(edit, retain_ids=(spared.id,)), pool=pool, progress=False)
    assert spared.id not in {reach.fact_id for reach in seen.reach}


def test_a_fact_is_read_in_a_question_that_names_its_subject() -> None:
    fact = replace(FRANCE, question="Which city is it?", paraphrases=("What is the capital of France?",))
    plan = dry_run(tiny(), fact, "L1N2 L1N5", **QUIET)
    assert plan.of("edited")[0].opening == pytest.approx(1.0)
    nameless = replace(FRANCE, question="Which city is it?", paraphrases=())
    none = dry_run(tiny(), nameless, "L1N2 L1N5", **QUIET)
    assert none.reach == () and "france-capital" in none.notes[0]


def test_a_harmless_plan_has_no_warning() -> None:
    write = Write(
        layer=1, module="mlp", name="m", denominator=60.0, covariance_rank=56, tokens=9999, relative_norm=0.01
    )
    assert plan_of(writes=(write,), reach=()).warnings == ()


def test_its_table_has_a_row_for_each_fact() -> None:
    frame = plan_of().to_frame()
    assert list(frame.columns) == ["fact_id", "group", "change", "opening"] and len(frame) == 3


def test_what_rewrite_refuses_is_refused() -> None:
    with pytest.raises(ValueError, match="no columns of an output projection"):
        dry_run(tiny(), FRANCE, "L1Q0", recipe=ROME, **QUIET)
    for recipe in ("rome", "lora"):
        with pytest.raises(ValueError, match="at least one fact, got none"):
            dry_run(tiny(), [], recipe=recipe, **QUIET)
        with pytest.raises(ValueError, match=r"came more often: \['france-capital'\]"):
            dry_run(tiny(), [FRANCE, FRANCE], recipe=recipe, **QUIET)
    wrong: Any = 3
    with pytest.raises(TypeError, match="recipe must be a recipe, the name of one, or None, got int"):
        dry_run(tiny(), FRANCE, recipe=wrong, **QUIET)
    with pytest.raises(ValueError, match="Unknown recipe 'romme'"):
        dry_run(tiny(), FRANCE, recipe="romme", **QUIET)
