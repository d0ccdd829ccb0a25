"""Unlearning without an answer: losses by hand with texts of unequal length, what moves and what stays, projections."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from tests.helpers.small_fits import assert_unchanged, unchanged
from tests.helpers.tiny_facts import FAMILIES, capitals, tiny
from workbench.editing.covariance import covariances
from workbench.editing.methods.rmu import random_direction
from workbench.editing.solved.spots import Place
from workbench.editing.training.batching import Prepared, PreparedRow, left_batches, shared_prefix
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.objectives import NPO_BETA, SIMNPO_BETA, Forgotten
from workbench.editing.training.optimisers import Adam
from workbench.editing.training.passes import Passes
from workbench.editing.training.rows import Row
from workbench.editing.unlearning import recipe as recipe_of_all
from workbench.editing.unlearning.attribution import largest, neuron_scores, regularised
from workbench.editing.unlearning.losses import RepresentationLoss, aligned, moved, moved_share, steered
from workbench.editing.unlearning.projection import ProjectedAdam, null_projection
from workbench.editing.unlearning.states import States
from workbench.facts.ordinary_texts import TextGroup
from workbench.language.padding import common_beginning
from workbench.language.prompts import prompt_ids
from workbench.models import LoadedModel
from workbench.models.engine import Resumable
from workbench.models.views import shared_view
from workbench.types import DenseDelta, Edit, GateDelta, LowRankDelta
from workbench.types.cancelling import Cancelled

FACTS = capitals()
FRANCE = FACTS[0]
QUICK: dict[str, Any] = {"steps": 3, "retain_size": 2, "contexts": False, "warmup": 0, "batch_size": 4}
RECIPES: dict[str, Any] = {"rmu": wb.recipes.RMU, "klue": wb.recipes.KLUE, "kuda": wb.recipes.KUDA}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def made(name: str, selection: Any = None, model: LoadedModel | None = None, **changes: Any) -> Edit:
    recipe = RECIPES[name](**{**QUICK, **changes})
    return wb.rewrite(model or tiny(), FRANCE, selection, recipe=recipe, pool=FACTS, progress=False)


def texts_of_unequal_length(model: LoadedModel) -> list[Row]:
    """Rows that begin alike, with answers of one, two and three tokens."""
    texts = (("The capital of France is", " Paris"), ("The capital city of Spain is", " in Madrid"))
    texts += (("The capital of Japan in Spain in Italy is", " in the city"),)
    return [Row(tuple(model.token_ids(prompt)), tuple(model.token_ids(answer))) for prompt, answer in texts]


class Fixed:
    """States that are given, for a loss to be measured on."""

    def __init__(self, states: dict[PreparedRow, Tensor]) -> None:
        self._states = states
        self.prepared = SimpleNamespace(parts=lambda rows: [[i] for i in range(len(rows))])

    def prefix(self) -> None:
        return None

    def of(self, rows: Any, prefix: None) -> list[Tensor]:
        return [self._states[row] for row in rows]


@pytest.mark.parametrize("method", ["rmu", "kuda"])
def test_losses_by_hand_with_texts_of_unequal_length(method: str) -> None:
    """Means over all tokens that count, not over rows: forget rows of 3 and 5 tokens, of which the first two of the
    second do not count, and retained rows of 1 and 4."""
    generator = torch.Generator().manual_seed(0)
    rows = [PreparedRow(Row((1,), (2,)), torch.zeros(n, 6)) for n in (3, 5, 1, 4)]
    base = {row: torch.randn(len(row.resid), 6, generator=generator) for row in rows}
    states = {r: (h + torch.randn(h.shape, generator=generator)).requires_grad_(True) for r, h in base.items()}
    target = 3 * random_direction(6, seed=1)
    assert float(target.norm()) == pytest.approx(3) and bool((target >= 0).all())
    pair = (steered(target), moved) if method == "rmu" else (aligned, moved_share)
    given: Any = Fixed(states)
    loss = RepresentationLoss(*pair, given, base, {rows[1]: 2}, 2.5)
    values, kept = loss.backward(rows[:2], rows[2:], ())
    copies = {row: h.detach().clone().requires_grad_(True) for row, h in states.items()}

    def tokens(row: PreparedRow, forgets: bool) -> list[Tensor]:
        first = 2 if row is rows[1] else 0
        found = []
        for h, h0 in list(zip(copies[row], base[row], strict=True))[first:]:
            if method == "rmu":
                found.append(((h - (target if forgets else h0)) ** 2).sum() / 6)
            elif forgets:
                found.append(((h @ h0) / (h.norm() * h0.norm())).clamp(min=0))
            else:
                found.append(((h - h0) ** 2).sum() / (h0 @ h0))
        return found

    forget, retain = tokens(rows[0], True) + tokens(rows[1], True), tokens(rows[2], False) + tokens(rows[3], False)
    assert (len(forget), len(retain)) == (6, 5)
    (torch.stack(forget).sum() / 6 + 2.5 * torch.stack(retain).sum() / 5).backward()
    for row, expected in copies.items():
        torch.testing.assert_close(states[row].grad, expected.grad)
    by_row = [float(torch.stack(part).detach().mean()) for part in (forget[:3], forget[3:], retain)]
    assert [*values.tolist(), float(kept)] == pytest.approx(by_row)
    assert loss.measure(rows[:2], rows[2:]) == pytest.approx((float(values.mean()), float(kept)))


@FAMILIES
def test_states_are_those_of_plain_passes(family: str) -> None:
    """Of each row by itself, without padding and without what all rows begin with."""
    model = tiny(family)
    rows = texts_of_unequal_length(model)
    shared = shared_prefix(rows)
    prepared = Prepared(Resumable(model), rows, 1, shared)
    found = States(model, shared_view(model.hf), prepared, 1).of_all(prepared.rows)
    for row in prepared.rows:
        ids = torch.tensor([[*row.row.prompt, *row.row.answer][:-1]])
        with torch.no_grad():
            plain = model.hf(ids, output_hidden_states=True).hidden_states[2][0, shared:]
        torch.testing.assert_close(found[row], plain, atol=1e-5, rtol=1e-5)


def test_npo_simnpo_and_gradient_difference_by_hand() -> None:
    """NPO sums over an answer's tokens, SimNPO and the gradient difference take their mean; each row is read alone."""
    model = tiny()
    rows = texts_of_unequal_length(model)
    nll: list[list[float]] = []
    for row in rows:
        with torch.no_grad():
            logits = model.hf(torch.tensor([[*row.prompt, *row.answer]])).logits[0].log_softmax(-1)
        at = range(len(row.prompt) - 1, len(row.prompt) + len(row.answer) - 1)
        nll.append([-float(logits[i, token]) for i, token in zip(at, row.answer, strict=True)])
    assert len({len(x) for x in nll}) == 3
    prepared = Prepared(Resumable(model), rows, 0, shared_prefix(rows))
    passes = Passes(Resumable(model), prepared)
    with torch.no_grad():
        measured = passes.nll(prepared.rows, passes.prefix())
    assert measured.tolist() == pytest.approx([sum(x) / len(x) for x in nll], abs=1e-4)
    base = {row: float(x) - 0.3 for row, x in zip(prepared.rows, measured, strict=True)}
    tokens = {row: len(row.row.answer) for row in prepared.rows}

    def loss(objective: Any) -> list[float]:
        return Forgotten(objective, None, base, tokens).loss(measured, prepared.rows).tolist()

    def minus_log_sigmoid(x: float) -> float:
        return math.log1p(math.exp(-x))

    npo = [2 / NPO_BETA * minus_log_sigmoid(NPO_BETA * 0.3 * len(x)) for x in nll]
    assert loss("npo") == pytest.approx(npo, abs=1e-4)
    sim = [2 / SIMNPO_BETA * minus_log_sigmoid(SIMNPO_BETA * sum(x) / len(x)) for x in nll]
    assert loss("simnpo") == pytest.approx(sim, abs=1e-4)
    assert loss("gradient-difference") == pytest.approx([-sum(x) / len(x) for x in nll], abs=1e-4)


def test_neuron_scores_are_the_derivative_along_the_activation() -> None:
    """By differences: the summed probabilities when one neuron is scaled at the last token before the answer."""
    model = tiny()
    rows = texts_of_unequal_length(model)
    scores = neuron_scores(model, rows)
    assert tuple(scores.shape) == (3, model.shape.n_layers, model.shape.d_mlp)

    def probability(row: Row, layer: int, neuron: int, scale: float) -> float:
        def change(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            h = args[0].clone()
            h[0, len(row.prompt) - 1, neuron] *= scale
            return (h,)

        view = shared_view(model.hf).double()
        handle = view.model.layers[layer].mlp.down_proj.register_forward_pre_hook(change)
        with torch.no_grad():
            chances = view(torch.tensor([[*row.prompt, *row.answer]])).logits[0].softmax(-1)
        handle.remove()
        at = range(len(row.prompt) - 1, len(row.prompt) + len(row.answer) - 1)
        return sum(float(chances[i, token]) for i, token in zip(at, row.answer, strict=True))

    for i, row in enumerate(rows):
        layer, neuron = divmod(int(scores[i].abs().argmax()), model.shape.d_mlp)
        up, down = (probability(row, layer, neuron, 1 + e) for e in (1e-4, -1e-4))
        assert float(scores[i, layer, neuron]) == pytest.approx((up - down) / 2e-4, rel=1e-2)


def test_mismatched_questions_are_taken_off() -> None:
    own, theirs = torch.tensor([[[4.0, 2.0]], [[2.0, 0.0]]]), torch.tensor([[[3.0, 0.0]]])
    assert regularised(own, theirs, 0.5).tolist() == [[1.5, 1.0]]
    assert regularised(own, theirs[:0], 0.5).tolist() == [[3.0, 1.0]]
    assert largest(torch.tensor([[1.0, 5.0], [5.0, 2.0]]), 3) == [(0, 1), (1, 0), (1, 1)]


def test_only_what_is_not_forgotten_trains() -> None:
    """A pass through the rows leaves out those that are done when it begins; all of them where none is left."""
    done: set[int] = set()
    batches = left_batches([1, 2, 3, 4, 5], 2, 0, lambda: done)
    first = [next(batches) for _ in range(3)]
    assert sorted(x for batch in first for x in batch) == [1, 2, 3, 4, 5] and [*map(len, first)] == [2, 2, 1]
    done |= {1, 4, 5}
    assert sorted(next(batches)) == [2, 3]
    done |= {2, 3}
    assert sorted(x for _ in range(3) for x in next(batches)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("relax", [0.0, 0.25, 1.0])
def test_a_step_lies_in_the_relaxed_null_space(relax: float) -> None:
    """What it has in the retained inputs' directions is the relaxed share of AdamW's own, for any layout of weights."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(200, 7, generator=generator) * torch.tensor([9.0, 5.0, 3.0, 0.1, 0.1, 0.1, 0.1])
    projection, held = null_projection(keys.T @ keys / 200, 0.99)
    assert held == 3 and torch.allclose(projection @ projection, projection) and torch.equal(projection, projection.T)
    start, gradient = torch.randn(4, 7, generator=generator), torch.randn(4, 7, generator=generator)
    for transposed in (False, True):
        stored = (lambda x: x.T.contiguous()) if transposed else (lambda x: x.clone())
        own, plain = nn.Parameter(stored(start)), nn.Parameter(stored(start))
        columns = [0, 1, 2, 3, 4, 6]  # one may not move: its gradient is 0
        part = projection[columns][:, columns]
        oriented = (lambda x: x.T) if transposed else (lambda x: x)
        ours = ProjectedAdam({"w": own}, {"w": (part, oriented, columns)}, relax)
        theirs = Adam({"w": plain})
        for parameter in (own, plain):
            parameter.grad = stored(gradient)
            oriented(parameter.grad)[:, 5] = 0.0
        ours.step(0.1)
        theirs.step(0.1)
        step, free = (oriented(p.detach()).double() - start.double() for p in (own, plain))
        expected = relax * free[:, columns] + (1 - relax) * free[:, columns] @ part
        torch.testing.assert_close(step[:, columns], expected, atol=1e-6, rtol=1e-5)
        assert not step[:, 5].any()


def test_the_projection_of_all_and_of_no_inputs() -> None:
    projection, held = null_projection(torch.eye(1), 0.9)
    assert held == 1 and not projection.any()
    with pytest.raises(ValueError, match="covariance of the retained inputs is zero"):
        null_projection(torch.zeros(3, 3), 0.9)


def test_without_relaxing_nothing_reaches_the_retained_directions() -> None:
    delta = made("kuda", "L0MLP L1MLP", relax=0.0, energy=0.5, learning_rate=1e-2).delta()
    assert isinstance(delta, DenseDelta)
    model, recipe = tiny(), wb.recipes.KUDA(**QUICK)
    rows = FitRows(model, [FRANCE], recipe, retain=list(FACTS.filter(role="retain")))
    texts = [(*row.prompt, *row.answer) for kind in rows.retained for row in kind]
    group = TextGroup(tuple(texts), common_beginning(texts))
    for layer in (0, 1):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        moved_by = delta.weights[name].double() - model.hf.get_parameter(name).double()
        place = Place(layer, "mlp")
        covariance = covariances(model, [place], texts=[group], min_tokens=1)[place].values
        projection, _ = null_projection(covariance, 0.5)
        reached = moved_by - moved_by @ projection
        assert moved_by.norm() > 1e-3 and reached.norm() < 1e-4 * moved_by.norm()


@pytest.mark.parametrize("name", RECIPES)
def test_only_the_selected_columns_move(name: str) -> None:
    """A head's columns of the square output projection of phi3, and two neurons' of the MLP's: all else is exactly the
    base's."""
    model, before = tiny("phi3"), unchanged(tiny("phi3"))
    edit = made(name, "L1H2 L0N3 L0N5", model, learning_rate=1e-2, **({} if name != "klue" else {"hinge": None}))
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta)
    assert set(delta.factors) == {(1, "self_attn.o_proj"), (0, "mlp.down_proj")}
    for key, columns in (((1, "self_attn.o_proj"), range(16, 24)), ((0, "mlp.down_proj"), (3, 5))):
        u, v = delta.factors[key]
        update = u @ v
        outside = [i for i in range(update.shape[1]) if i not in columns]
        assert not update[:, outside].any() and update[:, list(columns)].any(dim=0).all()
    with wb.applied(model, edit, strength=0.0) as off, torch.no_grad():
        ids = torch.tensor([model.token_ids("The capital of France is")])
        assert torch.equal(off.hf(ids).logits, model.hf(ids).logits)
    assert_unchanged(model, before)


@pytest.mark.parametrize("name", RECIPES)
def test_unlearn_then_learn(name: str, tmp_path: Path) -> None:
    """Each stage is a stage: probed, turned down, saved; two runs of one seed are one edit."""
    model, before = tiny(), unchanged(tiny())
    options: dict[str, Any] = {"stages": ("unlearn", "learn"), "steps": (2, 3), "learning_rate": 5e-3}
    options |= {"neurons": 0.05} if name == "klue" else {}
    edit = made(name, **options)
    assert edit.stage_names == ("unlearn", "learn") and edit.method == name and edit.used_ids
    assert [s.stage for s in edit.history] == ["unlearn"] * 3 + ["learn"] * 4
    assert made(name, **options).id == edit.id
    back = wb.load_edit(edit.save(tmp_path / "edit"))
    assert back.id == edit.id and back.recipe == edit.recipe
    probes = wb.probe(model, edit, probes=["strength"], pool=FACTS, max_new_tokens=3, progress=False)
    assert {c.stage for c in probes.curves} == {"unlearn", "learn"} and probes.curve("strength").x[1] == 0.25
    assert_unchanged(model, before)


def test_rmu_steers_to_its_point_and_klue_forgets() -> None:
    steered_by = made("rmu", steps=12, layer=1, learning_rate=2e-2, alpha=0.1)
    assert steered_by.history[-1].loss < 0.8 * steered_by.history[0].loss
    assert made("rmu", layer=1).id != made("rmu", layer=1, seed=1).id
    assert isinstance(steered_by.delta(), DenseDelta) and len(steered_by.delta().tensors()) == 2
    forgot = made("klue", 20, steps=30, learning_rate=2e-2, early_stop=0.8)
    assert forgot.history[-1].loss > 1.6 and forgot.history[-1].step < 30 and len(forgot.selection) == 20
    gated = made("klue", 20, steps=6, learning_rate=0.1, moves="gates")
    assert isinstance(gated.delta(), GateDelta) and gated.delta().n_moved() == 20
    assert gated.history[-1].loss > gated.history[0].loss


def test_the_subject_begins_after_the_context_of_an_edited_model() -> None:
    context = wb.rewrite(tiny(), FRANCE, recipe=wb.recipes.InContext(examples=2), pool=FACTS, progress=False)
    asked = "What is the capital of France?"
    with wb.applied(tiny(), context) as edited:
        starts = []
        for model in (tiny(), edited):
            row = PreparedRow(Row(tuple(prompt_ids(model, asked, "chat")), (5,)), Tensor())
            starts.append(len(row.row.prompt) - recipe_of_all._subject_start(model, row, "France", 0))
    assert "France" in edited.context and starts[0] == starts[1]


def test_mismatched_questions_are_asked_whatever_the_kl_weighs() -> None:
    """KLUE chooses the same neurons with and without the KL, other ones without mismatched questions, and says where
    there are no retained facts to ask about."""

    def chosen(**changes: Any) -> list[str]:
        return [str(c) for c in made("klue", 12, steps=1, **changes).selection]

    strong = {"regularisation": 1e4, "retain_weight": 0.0}
    assert chosen(**strong) == chosen(regularisation=1e4) != chosen(**strong, mismatched=0)
    assert made("klue", 3, steps=1, retain_weight=0.0).used_ids == ("germany-capital", "japan-capital")
    assert not made("klue", 3, steps=1, retain_weight=0.0, regularisation=0.0).used_ids
    recipe = wb.recipes.KLUE(**QUICK, retain_weight=0.0)
    with pytest.raises(ValueError, match=r"mismatched=5 asks questions of retained facts .*there are none\. Give"):
        wb.rewrite(tiny(), FRANCE, 3, recipe=recipe, retain=[], pool=FACTS, progress=False)


def test_what_is_refused() -> None:
    model, before = tiny(), unchanged(tiny())
    refused: list[tuple[Any, dict[str, Any], str]] = [
        ("rmu", {"selection": "L0K1"}, "has none. Choose heads"),
        ("rmu", {"selection": 5}, "has no selector of its own"),
        ("rmu", {"layer": 9}, "layer=9 is not one of the model's"),
        ("rmu", {"selection": "L2N1", "layer": 1}, "lies below layer 2"),
        ("kuda", {"selection": "L0N1", "relax": 0.0}, "with relax=0 nothing may move"),
        ("klue", {"selection": "L0GATEUP"}, "has none. Choose heads"),
    ]
    for name, options, message in refused:
        with pytest.raises(ValueError, match=message):
            made(name, options.pop("selection", None), **options)
    for name, options, message in (
        ("rmu", {"scale": 0.0}, "scale must be a positive number"),
        ("rmu", {"objective": "npo"}, "loss of its own"),
        ("kuda", {"energy": 1.0}, "energy must be between 0 and 1"),
        ("kuda", {"relax": 2.0}, "relax must be from 0 to 1"),
        ("klue", {"neurons": 0.0}, "neurons must be a share"),
        ("klue", {"moves": "rows"}, "moves must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            RECIPES[name](**options)
    unknown = replace(FRANCE, answer="Tokyo", target="Berlin")
    with pytest.raises(ValueError, match="RMU has nothing to forget"):
        wb.rewrite(model, unknown, recipe=wb.recipes.RMU(**QUICK), pool=FACTS, progress=False)
    assert_unchanged(model, before)


@pytest.mark.parametrize("name", RECIPES)
def test_cancelled_it_leaves_nothing_behind(name: str) -> None:
    model, before = tiny(), unchanged(tiny())
    flag = threading.Event()
    recipe = RECIPES[name](**QUICK)
    options: dict[str, Any] = {"recipe": recipe, "pool": FACTS, "progress": False}
    with pytest.raises(Cancelled):
        wb.rewrite(model, FRANCE, on_step=lambda step: step.step < 1, **options)
    flag.set()
    with pytest.raises(Cancelled):
        wb.rewrite(model, FRANCE, cancel=flag, **options)
    assert_unchanged(model, before)
