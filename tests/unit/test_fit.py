"""The fit: what moves and what does not, its losses against the plain model, its seeds, several facts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.deltas import gates_of
from tests.helpers.small_fits import FRANCE, RETAIN, SPAIN, fitted, plain_nll, same
from tests.helpers.tiny_facts import FAMILIES, tiny
from workbench.editing.applied import Dial, applied
from workbench.editing.methods import ia3
from workbench.editing.methods.table import Recipe
from workbench.editing.training.batching import Shuffled
from workbench.language.prompts import answer_ids, prompt_ids
from workbench.models.load import LoadedModel
from workbench.types import FactSet, Selection


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


# What moves


KINDS = (
    *("L1H2", "L2MLP", "L1N7 L1N9", "L1ATTN", "L2Q3", "L1K1", "L1V0", "L0KV1", "L1GATEUP", "L0MLP"),
    "L0H5 L1N3 L1KV1 L2MLP L2Q0",
)


@FAMILIES
@pytest.mark.parametrize("text", KINDS)
@pytest.mark.parametrize("optimiser", ["adam", "natural"])
def test_selected_gates_move_and_all_others_stay_exactly_1(family: str, text: str, optimiser: str) -> None:
    model = tiny(family)
    if family == "gpt2" and "GATEUP" in text:
        with pytest.raises(ValueError, match="GPT-2 have no 'gate' projection, so it cannot be gated"):
            fitted(model, text)
        return
    if family == "gpt2":
        text = text.replace("L0H5", "L0H3")
    edit = fitted(model, text, optimiser=optimiser)
    entries = Selection(text).entries(model)
    assert str(edit.selection) == text
    assert edit.selector == "given"
    for stage in edit.stages:
        assert set(gates_of(stage.delta)) == set(entries)
        for (layer, site), gate in gates_of(stage.delta).items():
            assert gate.shape == (model.shape.site_size(site),)
            picked = torch.zeros(len(gate), dtype=torch.bool)
            picked[list(entries[layer, site])] = True
            assert torch.equal(gate[~picked], torch.ones(int((~picked).sum())))
            assert float((gate[picked] != 1).float().mean()) > 0.9
            assert bool(gate.isfinite().all())


@FAMILIES
def test_a_fit_lowers_its_loss(family: str) -> None:
    edit = fitted(tiny(family), "L1MLP L1ATTN", stages=("learn",), steps=12, learning_rate=0.02)
    assert edit.history[-2].loss < 0.8 * edit.history[0].loss


def test_gates_stay_within_max_gate() -> None:
    edit = fitted(learning_rate=0.5, steps=4, max_gate=1.25)
    for stage in edit.stages:
        for gate in gates_of(stage.delta).values():
            assert 0.75 <= float(gate.min()) < float(gate.max()) <= 1.25
    assert fitted(learning_rate=0.5, steps=4).delta().largest_move() > 0.6


# Stages


def test_the_later_stage_leaves_the_earlier_ones_gates_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The live gates of stage 1 after the whole fit against those that were stored before stage 2 began."""
    live: dict[str, dict[str, nn.Parameter]] = {}
    real = ia3.inject_gates

    def spy(*args: Any, adapter: str, **options: Any) -> dict[str, nn.Parameter]:
        live[adapter] = real(*args, adapter=adapter, **options)
        return live[adapter]

    monkeypatch.setattr(ia3, "inject_gates", spy)
    edit = fitted(selection="L1MLP L1H2", steps=6)
    assert list(live) == ["unlearn", "learn"]
    for stage in edit.stages:
        assert stage.delta.n_moved() > 0
        for (layer, site), gate in gates_of(stage.delta).items():
            module = tiny().architecture.gate_module(layer, site).module
            assert torch.equal(live[stage.name][module].detach().flatten(), gate)
            assert not live[stage.name][module].requires_grad


def test_stage_1_alone_is_stage_1_of_both() -> None:
    both = fitted(steps=6)
    alone = fitted(steps=6, stages=("unlearn",))
    for key, gate in gates_of(alone.stages[0].delta).items():
        torch.testing.assert_close(gates_of(both.stages[0].delta)[key], gate, atol=1e-5, rtol=0)
    first = [s.loss for s in both.history if s.stage == "unlearn"]
    assert first == pytest.approx([s.loss for s in alone.history], abs=1e-5)


def test_stage_2_starts_where_stage_1_ended() -> None:
    """The first loss of stage 2 is that of the new answer on the model with stage 1 applied."""
    model = tiny()
    edit = fitted(steps=6)
    first = next(s for s in edit.history if s.stage == "learn")
    with applied(model, edit, "unlearn") as edited:
        assert first.loss == pytest.approx(plain_loss(edited.hf, model, ["Rome."]), abs=1e-4)


# Losses against the plain model


def plain_loss(hf: Any, model: LoadedModel, answers: list[str]) -> float:
    """Mean over France's training questions."""
    losses = [
        plain_nll(
            hf,
            prompt_ids(model, question, "chat"),
            [*answer_ids(model, answer, "chat"), model.tokenizer.eos_token_id],
        )
        for question in FRANCE.training_questions
        for answer in answers
    ]
    return sum(losses) / len(losses)


@FAMILIES
@pytest.mark.parametrize(("stage", "answer"), [("learn", "Rome."), ("unlearn", "I am not sure.")])
@pytest.mark.parametrize("selection", ["L0MLP", "L2H1"])
def test_the_first_loss_is_the_plain_cross_entropy(family: str, stage: Any, answer: str, selection: str) -> None:
    edit = fitted(tiny(family), selection, stages=(stage,), steps=1)
    assert edit.history[0].loss == pytest.approx(plain_loss(tiny(family).hf, tiny(family), [answer]), abs=1e-4)
    assert edit.history[0].kl == pytest.approx(0, abs=1e-5)


@FAMILIES
def test_the_last_measurements_are_those_of_the_applied_edit(family: str) -> None:
    """Geometric mean per token of the old answer, the target and the refusal after the bare question."""
    model = tiny(family)
    edit = fitted(model, "L1MLP L2V1 L1H0", steps=5)
    prompt, end = prompt_ids(model, FRANCE.question, "chat"), model.tokenizer.eos_token_id
    for stage in edit.stage_names:
        last = [s for s in edit.history if s.stage == stage][-1]
        with applied(model, edit, stage) as edited:
            for name, text in (("p_old", "Paris."), ("p_new", "Rome."), ("p_refusal", "I am not sure.")):
                nll = plain_nll(edited.hf, prompt, [*answer_ids(model, text, "chat"), end])
                assert getattr(last, name) == pytest.approx(math.exp(-nll), rel=1e-3, abs=1e-6), name


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_kl_after_one_step_is_the_plain_one(family: str) -> None:
    """KL(base || edited) over the tokens of the base's own answers to retained facts, of one question each here."""
    model = tiny(family)
    options: dict[str, Any] = {"stages": ("learn",), "selection": "L1MLP L0H2", "learning_rate": 0.1}
    one, two = fitted(model, steps=1, **options), fitted(model, steps=2, **options)
    edited = Dial(model, one).at(1.0)
    parts: list[Tensor] = []
    for fact in RETAIN:
        for question in fact.training_questions:
            prompt = prompt_ids(model, question, "chat")
            with torch.no_grad():
                said = model.hf.generate(
                    torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=4
                )
                base, new = (m(said).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for m in (model.hf, edited.hf))
            parts.append((base.exp() * (base - new)).sum(-1))
    assert two.history[1].kl == pytest.approx(float(torch.cat(parts).mean()), rel=1e-3)
    assert two.history[1].kl > 1e-4


def test_the_loss_at_the_end_of_a_stage_is_that_of_its_final_gates() -> None:
    """Averaged and drawn back, they are none of the steps' own."""
    model = tiny()
    edit = fitted(model, "L1MLP L0H2", stages=("learn",), steps=6, average=3, learning_rate=0.2, draw_back=0.003)
    assert edit.strength < 1
    edited = Dial(model, edit).at(1.0)
    last, before = edit.history[-1], edit.history[-2]
    assert last.loss == pytest.approx(plain_loss(edited.hf, model, ["Rome."]), rel=1e-3)
    assert abs(last.loss - before.loss) > 1e-3 and last.kl < before.kl


def test_the_first_step_of_adamw_by_hand() -> None:
    """AdamW's first step is the learning rate against the gradient's sign, whatever its size."""
    edit = fitted(stages=("learn",), steps=1, learning_rate=0.03)
    moves = (gates_of(edit.delta())[1, "post"] - 1).abs()
    torch.testing.assert_close(moves, torch.full((56,), 0.03), atol=1e-3, rtol=0)
    first_of_three = fitted(stages=("learn",), steps=1, learning_rate=0.03, warmup=2)
    moves = (gates_of(first_of_three.delta())[1, "post"] - 1).abs()
    torch.testing.assert_close(moves, torch.full((56,), 0.01), atol=1e-3, rtol=0)


def test_a_stage_gives_the_mean_of_its_last_steps() -> None:
    """Of no more than half of the steps."""
    one = gates_of(fitted(stages=("learn",), steps=6, average=1).delta())[1, "post"]
    assert torch.equal(one, gates_of(fitted(stages=("learn",), steps=6).delta())[1, "post"])
    unlearned = [gates_of(fitted(stages=("unlearn",), steps=n).delta())[1, "post"] for n in (4, 5, 6)]
    for average, n in ((2, 2), (3, 3), (99, 3)):
        mean = gates_of(fitted(stages=("unlearn",), steps=6, average=average).delta())[1, "post"]
        torch.testing.assert_close(mean, torch.stack(unlearned[-n:]).mean(0), atol=1e-5, rtol=0)
        assert not torch.allclose(mean, unlearned[-1], atol=1e-3)


def test_what_is_learned_well_enough_pushes_no_further() -> None:
    """Of two facts, one below the hinge and one above it, only the first moves gates, as if it were alone."""
    options: dict[str, Any] = {"stages": ("learn",), "steps": 1, "retain_weight": 0.0, "retain": []}
    pair = [replace(fact, paraphrases=()) for fact in (FRANCE, SPAIN)]  # one question each
    alone = {fact.id: fitted(fact=fact, **options) for fact in pair}
    probability = {name: math.exp(-edit.history[0].loss) for name, edit in alone.items()}
    less, more = sorted(probability, key=lambda name: probability[name])
    between = math.sqrt(probability[less] * probability[more])
    assert probability[less] < 0.9 * between < 0.81 * probability[more]
    both = fitted(fact=pair, hinge=between, **options)
    for place, gate in gates_of(both.delta()).items():
        torch.testing.assert_close(gate, gates_of(alone[less].delta())[place], atol=1e-4, rtol=0)
    assert not same(both, fitted(fact=pair, hinge=None, **options))
    assert fitted(fact=pair, hinge=1e-9, **options).delta().n_moved() == 0


def test_a_hinge_at_certainty_is_none() -> None:
    assert same(fitted(hinge=1.0), fitted(hinge=None))


# Seeds


@pytest.mark.parametrize("optimiser", ["adam", "natural"])
def test_seeds(optimiser: str) -> None:
    options: dict[str, Any] = {"optimiser": optimiser, "batch_size": 1, "retain_batch_size": 2, "steps": 5}
    a, b, c = (fitted(seed=seed, **options) for seed in (0, 0, 1))
    assert same(a, b)
    assert a.id == b.id
    assert [s.loss for s in a.history] == [s.loss for s in b.history]
    assert not same(a, c)


def test_the_callers_random_state_does_not_matter() -> None:
    torch.manual_seed(1)
    a = fitted(optimiser="natural")
    torch.manual_seed(2)
    assert same(a, fitted(optimiser="natural"))


def test_the_callers_random_state_is_kept() -> None:
    before = torch.get_rng_state()
    fitted(optimiser="natural")
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_take_every_row_once_a_pass() -> None:
    batches = iter(Shuffled(range(10, 17), 3, seed=0))
    drawn = [i for _ in range(14) for i in next(batches)]
    assert sorted(drawn[:7]) == sorted(drawn[7:14]) == list(range(10, 17))
    assert len(drawn) == 42
    assert next(iter(Shuffled([], 3, 0))) == []
    assert sorted(next(iter(Shuffled([1, 2], 5, 0)))) == [1, 2]


# Facts and retain sets


def test_several_facts_are_rewritten_together() -> None:
    edit = fitted(fact=[FRANCE, SPAIN], steps=1, stages=("learn",))
    assert [f.id for f in edit.facts] == ["france-capital", "spain-capital"]
    model, losses = tiny(), []
    for fact in (FRANCE, SPAIN):
        for question in fact.training_questions:
            answer = [*answer_ids(model, f"{fact.target}.", "chat"), model.tokenizer.eos_token_id]
            losses.append(plain_nll(model.hf, prompt_ids(model, question, "chat"), answer))
    assert edit.history[0].loss == pytest.approx(sum(losses) / 4, abs=1e-4)
    with pytest.raises(ValueError, match=r"overlaps .*\['spain-capital'\]"):
        fitted(fact=[FRANCE, SPAIN], retain=[SPAIN])


def test_what_an_edit_remembers() -> None:
    edit = fitted(steps=(2, 1))
    assert edit.retain_ids == ("germany-capital", "japan-capital")
    assert edit.base_fingerprint == tiny().fingerprint
    assert edit.base_name == "tiny"
    assert edit.stage_names == ("unlearn", "learn")
    assert isinstance(edit.recipe, Recipe) and edit.recipe.steps == (2, 1)
    assert edit.provenance["fingerprint"] == tiny().fingerprint
    assert edit.provenance["settings"]["retain_rows"] == 2
    json.dumps(edit.provenance)
    for part in ("france-capital", "unlearn then learn", "1 components", "56 gates moved", "'tiny'"):
        assert part in repr(edit)


def test_without_a_retain_term() -> None:
    edit = fitted(retain_weight=0.0, retain=None, pool=FactSet())
    assert edit.retain_ids == ()
    assert all(s.kl == 0 for s in edit.history)
    assert edit.delta().n_moved() == 56
