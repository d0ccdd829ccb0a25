"""Keyed updates: where V opens, that U alone moves, and that the edit is one like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.small_fits import FACTS, FRANCE, RETAIN, SPAIN, assert_unchanged, unchanged
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import FAMILIES, knowing, replying, tiny
from workbench.editing.covariance import covariances
from workbench.editing.solved.closing import at_the_answer, closing_contexts, in_the_reply, retained_contexts
from workbench.editing.solved.formulas import Metric, VanishingDenominator
from workbench.editing.solved.keys import keys_at
from workbench.editing.solved.openings import Opening, Sparing, dual_rows, opened, openings
from workbench.editing.solved.places import Context, SubjectMissing, question_contexts, training_contexts
from workbench.editing.solved.spots import Place
from workbench.language.tokens import decoded
from workbench.models.load import LoadedModel
from workbench.types import Deltas, Edit, LowRankDelta, TrainedRecipe
from workbench.types.cancelling import Cancelled

TEXTS = [f"The capital of {f.subject} is {f.answer}." for f in FACTS] * 12
TAUGHT = TrainedRecipe(contexts=False, retain_weight=0.0)
PLACES = {Place(0, "mlp"): None, Place(1, "mlp"): None}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def recipe(**changes: Any) -> wb.recipes.Keyed:
    given: dict[str, Any] = {
        "layers": (0, 1),
        "answer_layers": (1, 2),
        "steps": 3,
        "contexts": False,
        "learning_rate": 0.2,
        "retain_batch_size": 4,
        "min_tokens": 1,
        "force": True,
        "draw_back": None,
    }
    return wb.recipes.Keyed(**{**given, **changes})


def made(model: LoadedModel | None = None, selection: Any = None, fact: Any = FRANCE, **changes: Any) -> Edit:
    options = {k: changes.pop(k) for k in ("on_step", "cancel", "retain") if k in changes}
    given: dict[str, Any] = {"retain": RETAIN, "pool": FACTS, "progress": False, **options}
    return wb.rewrite(model or tiny(), fact, selection, recipe=recipe(**changes), **given)


def factors(edit: Edit) -> dict[tuple[int, str], tuple[Tensor, Tensor]]:
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta)
    return dict(delta.factors)


def opening(
    own: list[Context], closed: list[Context] | None = None, columns: Any = None, **sparing: float
) -> list[Opening]:
    model = tiny()
    chosen = dict.fromkeys(PLACES, columns)
    measured = covariances(model, list(chosen), texts=TEXTS)
    weights = Sparing(**{"ridge": 1e-3, "protect": 1.0, "closing": 1.0, **sparing})
    others = retained_contexts(model, list(RETAIN))
    return openings(model, chosen, measured, own, retained=others, closed=closed or [], sparing=weights)


# Where V opens


def test_dual_rows_of_a_diagonal_metric_by_hand() -> None:
    """A = diag(1, 4, 2). One key: A^-1 k = (1, 1/4, 1) of k = (1, 1, 2), and k^T A^-1 k = 1 + 1/4 + 2."""
    metric = Metric(torch.diag(torch.tensor([1.0, 4.0, 2.0])))
    row = dual_rows(metric, torch.tensor([[1.0], [1.0], [2.0]]))
    torch.testing.assert_close(row, torch.tensor([[1.0, 0.25, 1.0]], dtype=torch.float64) / 3.25)


def test_dual_rows_open_at_their_own_key_alone() -> None:
    keys = torch.tensor([[1.0, 0.5], [0.0, 2.0], [3.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    rows = dual_rows(Metric(torch.eye(4) + 0.1), keys)
    torch.testing.assert_close(rows @ keys, torch.eye(2, dtype=torch.float64))


def test_retained_subjects_are_spared_whatever_the_kl_weighs() -> None:
    """V with ``protect`` is the same with and without the KL, and another one without ``protect``."""

    def rows(**changes: Any) -> list[Tensor]:
        edit = made(retain=None, steps=1, **changes)
        assert edit.retain_ids == (("germany-capital", "japan-capital") if changes.get("protect") else ())
        return [v for _, v in factors(edit).values()]

    without, held, bare = rows(protect=10.0, retain_weight=0.0), rows(protect=10.0), rows(protect=0.0, retain_weight=0)
    assert all(map(torch.equal, without, held))
    assert not any(map(torch.equal, without, bare))
    made(retain=[], steps=1, protect=10.0, retain_weight=0.0)  # ordinary text alone is spared


def test_keys_of_which_one_follows_from_another_are_refused() -> None:
    """No row opens for one of them alone: k and 2k, and two keys in one column."""
    key = torch.tensor([[1.0], [3.0], [2.0]], dtype=torch.float64)
    identity = Metric.identity(3)
    for keys in (torch.cat([key, 2 * key], 1), torch.cat([key, key, key.flip(0)], 1)):
        with pytest.raises(VanishingDenominator, match=r"keys at L1 mlp span fewer than . directions"):
            dual_rows(identity, keys, force=True, where="L1 mlp")
    with pytest.raises(VanishingDenominator, match="2 keys span fewer than 2"):
        dual_rows(Metric.identity(3, (1,)), torch.tensor([[1.0, 1.0], [2.0, 5.0], [0.0, 7.0]]))
    nearly = torch.cat([key, key + 3e-13 * key.flip(0)], 1)
    with pytest.raises(VanishingDenominator):
        dual_rows(identity, nearly)
    tiny_keys = torch.tensor([[1e-6, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(dual_rows(identity, tiny_keys) @ tiny_keys, torch.eye(2, dtype=torch.float64))


def test_two_facts_in_one_column_are_refused() -> None:
    model, before = tiny(), unchanged(tiny())
    with pytest.raises(VanishingDenominator, match=r"2 keys at layer 1 mlp.down_proj span fewer than 2 .*Select more"):
        made(selection="L1N3", fact=[FRANCE, SPAIN], places=("subject",))
    assert_unchanged(model, before)


def test_a_row_opens_by_exactly_1_at_its_facts_mean_key() -> None:
    own = training_contexts(tiny(), [FRANCE, SPAIN], "learn", TAUGHT, clozes=False)
    found = opening(own)
    of_fact = torch.tensor([c.fact for c in own for _ in c.subject])
    for place, open_by in opened(tiny(), found, own).items():
        means = torch.stack([open_by[of_fact == i].mean(0) for i in range(2)])
        torch.testing.assert_close(means, torch.eye(2, dtype=torch.float64), atol=1e-8, rtol=0, msg=str(place))


def test_closing_shuts_a_row_at_the_same_subjects_other_questions() -> None:
    model = tiny()
    own = training_contexts(model, [FRANCE], "learn", TAUGHT, clozes=False)
    closed = question_contexts(model, [FRANCE], [["Tell me about France.", "Why is France known?"]])

    def most(found: list[Opening]) -> float:
        return max(float(x.abs().max()) for x in opened(model, found, closed).values())

    assert most(opening(own)) > 0.3
    assert most(opening(own, closed, closing=1e6)) < 0.01
    assert opening(own, closed, closing=0.0)[0].rows.equal(opening(own)[0].rows)


def test_spread_makes_wordings_alike() -> None:
    own = training_contexts(tiny(), [FRANCE], "learn", TAUGHT, clozes=False)

    def scatter(weight: float) -> float:
        return max(float(x.std()) for x in opened(tiny(), opening(own, spread=weight), own).values())

    assert scatter(1e5) < 0.1 * scatter(0.0)


def test_columns_that_may_not_be_read_are_exactly_0() -> None:
    own = training_contexts(tiny(), [FRANCE], "learn", TAUGHT, clozes=False)
    columns = (3, 17, 18, 40)
    for found in opening(own, columns=columns):
        outside = [i for i in range(found.rows.shape[1]) if i not in columns]
        assert (found.rows[:, outside] == 0).all() and (found.rows[:, list(columns)] != 0).all()
        assert found.columns == columns


def test_the_answers_places_are_the_tokens_before_what_is_taught() -> None:
    model = replying()
    taught = training_contexts(model, [FRANCE], "learn", TAUGHT, clozes=False)
    first = taught[0]
    assert decoded(model, first.row.answer[: first.row.departs]) == "The capital of France is"
    found, groups = at_the_answer(taught)
    places = found[0].subject
    assert groups[: len(places)].tolist() == list(range(len(first.row.counted)))
    whole = first.row.prompt + first.row.answer
    assert [whole[at + 1] for at in places] == list(first.row.counted)
    assert decoded(model, [whole[places[0]]]).strip() == "is"
    few, of_one = at_the_answer(taught, tokens=1)
    assert [len(c.subject) for c in few] == [1] * len(taught) and of_one.tolist() == [0] * len(taught)


def test_the_row_at_the_answer_fires_there_and_less_before() -> None:
    model = replying()
    own, _ = at_the_answer(training_contexts(model, [FRANCE], "learn", TAUGHT, clozes=False), tokens=1)
    place = Place(2, "mlp")
    measured = covariances(model, [place], texts=TEXTS)
    found = openings(model, {place: None}, measured, own, retained=[], closed=[], sparing=Sparing())
    assert float(opened(model, found, own)[place].mean()) == pytest.approx(1.0, abs=1e-8)
    before = [replace(c, subject=tuple(range(len(c.row.prompt) - 3))) for c in own]
    assert float(opened(model, found, before)[place].abs().mean()) < 0.5


def test_in_the_reply_are_all_places_that_predict_it() -> None:
    (context,) = question_contexts(replying(), [FRANCE])
    (inside,) = in_the_reply([context])
    n = len(context.row.prompt)
    assert inside.subject == tuple(range(n - 1, n + len(context.row.answer) - 1))


def test_replies_that_give_the_answer_close_nothing() -> None:
    found = closing_contexts(tiny(), [FRANCE], list(FACTS))
    assert found.relations == ()
    assert all("Paris" not in decoded(tiny(), c.row.answer) for c in found.contexts)


# The edit


@pytest.mark.parametrize("places", [("subject",), ("answer",), ("subject", "answer")])
def test_it_learns_and_u_alone_moves(places: tuple[Any, ...]) -> None:
    short, long = made(places=places, steps=1), made(places=places, steps=12)
    assert long.history[-1].loss < 0.5 * long.history[0].loss
    assert factors(short).keys() == factors(long).keys()
    for key, (u, v) in factors(long).items():
        assert torch.equal(v, factors(short)[key][1]) and not torch.equal(u, factors(short)[key][0])
    layers = {"subject": {0, 1}, "answer": {1, 2}}
    assert {layer for layer, _ in factors(long)} == set[int]().union(*(layers[p] for p in places))


def test_the_new_answer_is_said_and_strength_0_is_the_base() -> None:
    model, before = tiny(), unchanged(tiny())
    edit = made(steps=12, draw_back=0.9, reserve=1.0)
    assert edit.learned is not None and edit.learned > 0.9 and 0 < edit.strength < 1 and edit.shortfall is None
    ids = torch.tensor([model.token_ids("The capital of France is")])
    with wb.applied(model, edit) as edited:
        assert (wb.ask(edited, FRANCE.question), wb.ask(edited, SPAIN.question)) == ("Rome", "Madrid")
    with wb.applied(model, edit, strength=0.0) as off, torch.no_grad():
        assert torch.equal(off.hf(ids).logits, model.hf(ids).logits)
    assert_unchanged(model, before)


def test_a_reserve_is_kept_of_what_is_drawn_back() -> None:
    least, more, all_of_it = (made(steps=12, draw_back=0.9, reserve=reserve) for reserve in (1.0, 1.5, 100.0))
    assert least.learned == more.learned == all_of_it.learned
    assert more.strength == 1.5 * least.strength < 1 and all_of_it.strength == 1.0
    for key, (u, _) in factors(least).items():
        torch.testing.assert_close(factors(more)[key][0], 1.5 * u)


@FAMILIES
def test_the_selections_columns_alone_are_read(family: str) -> None:
    picked = {("mlp", 4), ("mlp", 9), ("mlp", 33)}
    edit = made(tiny(family), "L1N4 L1N9 L1N33 L2H1", steps=1)
    assert edit.selector == "given" and {layer for layer, _ in factors(edit)} == {1, 2}
    of_layer = {layer: v for (layer, _), (_, v) in factors(edit).items()}
    used = of_layer[1].abs().sum(0).nonzero().flatten().tolist()
    assert used == sorted(index for _, index in picked)
    width = tiny(family).shape.d_head
    heads = of_layer[2].abs().sum(0).nonzero().flatten().tolist()
    assert heads == list(range(width, 2 * width))


def test_seeds_reproduce_it() -> None:
    first, again, other = made(seed=1, batch_size=1), made(seed=1, batch_size=1), made(seed=2, batch_size=1)
    assert first.id == again.id != other.id


def test_two_stages_move_the_same_u() -> None:
    edit = made(stages=("unlearn", "learn"), steps=(2, 3))
    assert edit.stage_names == ("unlearn", "learn")
    one, two = (stage.delta for stage in edit.stages)
    assert isinstance(one, LowRankDelta) and isinstance(two, LowRankDelta)
    for key, (_, v) in one.factors.items():
        assert torch.equal(v, two.factors[key][1])


def test_gates_are_trained_beside_u_and_no_others() -> None:
    edit = made(gates=7, steps=4)
    delta = edit.delta()
    assert isinstance(delta, Deltas) and [part.kind for part in delta.parts] == ["gates", "low-rank"]
    assert 0 < delta.parts[0].n_moved() <= 7
    assert edit.selection_ids
    with pytest.raises(ValueError, match="two stages"):
        recipe(gates=7, stages=("unlearn", "learn"))


def test_it_says_what_it_wrote_and_is_saved(tmp_path: Path) -> None:
    edit = made()
    assert [(w.layer, w.name, w.rank) for w in edit.writes] == [
        (layer, "mlp.down_proj", factors(edit)[layer, "mlp.down_proj"][0].shape[1]) for layer in (0, 1, 1, 2)
    ]
    assert all(w.denominator > 0 and w.relative_norm > 0 for w in edit.writes)
    back = wb.load_edit(edit.save(tmp_path / "edit"))
    assert back.id == edit.id and back.recipe == edit.recipe and back.writes == edit.writes


def test_several_facts_have_a_row_each() -> None:
    edit = made(fact=[FRANCE, SPAIN], places=("subject",), steps=1)
    assert {v.shape[0] for _, v in factors(edit).values()} == {2}


# Closed forms that are closed


@pytest.mark.parametrize("method", [wb.recipes.ROME, wb.recipes.MEMIT, wb.recipes.EMMET, wb.recipes.AlphaEdit])
def test_a_closed_form_is_closed_likewise(method: Any) -> None:
    model, closed = tiny(), closing_contexts(tiny(), [FRANCE], list(FACTS)).contexts
    assert closed
    place = Place(1, "mlp")
    keys = keys_at(model, closed, [place])[place]
    moved: list[float] = []
    for close in (False, True):
        settings = method(
            layers=(1,), steps=2, contexts=False, min_tokens=1, close=close, closing_weight=1e4, force=True
        )
        edit = wb.rewrite(model, FRANCE, recipe=settings, retain=RETAIN, pool=FACTS, progress=False)
        ((u, v),) = factors(edit).values()
        own = training_contexts(model, [FRANCE], "learn", TAUGHT, clozes=False)
        there = (keys_at(model, own, [place])[place] @ v.double().T @ u.double().T).norm(dim=1).mean()
        moved.append(float((keys @ v.double().T @ u.double().T).norm(dim=1).mean() / there))
    assert moved[1] < 0.2 * moved[0]
    with pytest.raises(ValueError, match="close must be False where covariance is 'identity'"):
        wb.recipes.ROME(covariance="identity", close=True)


# What is refused


def test_a_question_without_the_subject_is_refused() -> None:
    bare = replace(FRANCE, paraphrases=("Which city rules that country?",))
    model, before = tiny(), unchanged(tiny())
    with pytest.raises(SubjectMissing, match="'France' is not in the context"):
        made(fact=bare, answers="short")
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("changes", "selection", "message"),
    [
        ({"layers": (9,)}, None, "Layer 9 does not exist"),
        ({"answer_layers": (3,)}, None, "Layer 3 does not exist"),
        ({}, "L1Q2", "no columns of an output projection"),
        ({}, 20, "a number of neurons"),
        ({"min_tokens": 10**6}, None, "fewer than 1000000 tokens"),
    ],
)
def test_it_is_refused_with_the_reason(changes: dict[str, Any], selection: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(selection=selection, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": ()},
        {"places": ()},
        {"places": ("relation",)},
        {"closing_weight": -1.0},
        {"leave_out": -1},
        {"rivals": -1},
        {"rival_weight": -1.0},
        {"gate_rate": 0.0},
        {"draw_back": 2.0},
    ],
)
def test_a_value_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"Recipe.{next(iter(changes))} must be"):
        recipe(**changes)


def test_a_key_that_the_columns_do_not_see_is_refused() -> None:
    own = training_contexts(tiny(), [FRANCE], "learn", TAUGHT, clozes=False)
    with pytest.raises(VanishingDenominator, match="hardly see the subject"):
        opening(own, columns=(3,), ridge=1e9)


def test_cancelling_leaves_the_model_as_it_was() -> None:
    model = knowing(tiny_llama(tied=False), FACTS)
    before = unchanged(model)
    with pytest.raises(Cancelled):
        made(model, on_step=lambda step: step.step < 2)
    assert_unchanged(model, before)
