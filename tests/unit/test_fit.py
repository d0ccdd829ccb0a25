"""The fit: what moves and what does not, its losses against the plain model, its errors; nothing is left behind."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import loaded, tiny_gpt2, tiny_llama, tiny_phi3
from tests.tiny_facts import capital, capitals, knowing
from workbench.architecture import inject_gates, shared_view
from workbench.editing import fit as fit_module
from workbench.editing import loop as loop_module
from workbench.editing.applied import Dial, applied
from workbench.editing.batches import (
    Row,
    Shuffled,
    chat_row,
    refused,
    retain_batches,
    retain_rows,
    rewritten,
    training_prompts,
    wanted_rows,
)
from workbench.editing.fit import Cancelled, NonFiniteLoss, rewrite
from workbench.editing.recipes import RECIPES
from workbench.editing.retain import default_retain
from workbench.editing.selector import default_selection, gate_scores
from workbench.editing.sensitivity import DAMPING, fisher_information, gate_gradients
from workbench.models import LoadedModel
from workbench.prompts import answer_ids, prompt_ids
from workbench.types import Edit, FactSet, GateDelta, Recipe, Selection, Step

FACTS = capitals()
FRANCE, ITALY, SPAIN = FACTS[0], FACTS[1], FACTS[2]
RETAIN = FactSet([replace(f, paraphrases=()) for f in FACTS.filter(role="retain")], name="of one question each")
MAKERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tiny_llama(tied=False, bias=True),
    "gpt2": lambda: tiny_gpt2(tie_word_embeddings=False),
    "phi3": tiny_phi3,
}
FAMILIES = pytest.mark.parametrize("family", MAKERS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@lru_cache
def tiny(family: str = "llama") -> LoadedModel:
    return knowing(MAKERS[family](), FACTS)


def recipe(**changes: Any) -> Recipe:
    """Few steps of AdamW on all rows at once, at a constant rate."""
    given: dict[str, Any] = {
        "optimiser": "adam",
        "answers": "short",
        "contexts": False,
        "steps": 3,
        "learning_rate": 0.05,
        "warmup": 0,
        "cooldown": 0,
        "batch_size": 8,
        "retain_batch_size": 8,
        "early_stop": None,
    }
    return Recipe(**{**given, **changes})


def fitted(model: LoadedModel | None = None, selection: Any = "L1MLP", fact: Any = FRANCE, **options: Any) -> Edit:
    """A small fit; settings of ``recipe`` may be given by name."""
    settings = {k: options.pop(k) for k in list(options) if k in Recipe.__dataclass_fields__}
    given: dict[str, Any] = {"retain": RETAIN, "pool": FACTS, "progress": False, "recipe": recipe(**settings)}
    return rewrite(model or tiny(), fact, selection, **{**given, **options})


def same(a: Edit, b: Edit) -> bool:
    """Equal to the bit."""
    return a.stage_names == b.stage_names and all(
        x.delta.gates.keys() == y.delta.gates.keys()
        and all(torch.equal(x.delta.gates[k], y.delta.gates[k]) for k in x.delta.gates)
        for x, y in zip(a.stages, b.stages, strict=True)
    )


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
        assert set(stage.delta.gates) == set(entries)
        for (layer, site), gate in stage.delta.gates.items():
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
        for gate in stage.delta.gates.values():
            assert 0.75 <= float(gate.min()) < float(gate.max()) <= 1.25
    assert fitted(learning_rate=0.5, steps=4).delta().largest_move() > 0.6


# Stages


def test_the_later_stage_leaves_the_earlier_ones_gates_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The live gates of stage 1 after the whole fit against those that were stored before stage 2 began."""
    live: dict[str, dict[str, nn.Parameter]] = {}
    real = fit_module.inject_gates

    def spy(*args: Any, adapter: str, **options: Any) -> dict[str, nn.Parameter]:
        live[adapter] = real(*args, adapter=adapter, **options)
        return live[adapter]

    monkeypatch.setattr(fit_module, "inject_gates", spy)
    edit = fitted(selection="L1MLP L1H2", steps=6)
    assert list(live) == ["unlearn", "learn"]
    for stage in edit.stages:
        assert stage.delta.n_moved() > 0
        for (layer, site), gate in stage.delta.gates.items():
            module = tiny().architecture.gate_module(layer, site).module
            assert torch.equal(live[stage.name][module].detach().flatten(), gate)
            assert not live[stage.name][module].requires_grad


def test_stage_1_alone_is_stage_1_of_both() -> None:
    both = fitted(steps=6)
    alone = fitted(steps=6, stages=("unlearn",))
    for key, gate in alone.stages[0].delta.gates.items():
        torch.testing.assert_close(both.stages[0].delta.gates[key], gate, atol=1e-5, rtol=0)
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


def plain_nll(hf: Any, prompt: list[int], answer: list[int]) -> float:
    """Hugging Face's own cross-entropy over the answer's tokens."""
    ids = torch.tensor([[*prompt, *answer]])
    labels = torch.tensor([[-100] * len(prompt) + answer])
    with torch.no_grad():
        return float(hf(ids, labels=labels).loss)


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


def test_the_first_step_of_adamw_by_hand() -> None:
    """AdamW's first step is the learning rate against the gradient's sign, whatever its size."""
    edit = fitted(stages=("learn",), steps=1, learning_rate=0.03)
    moves = (edit.delta().gates[1, "post"] - 1).abs()
    torch.testing.assert_close(moves, torch.full((56,), 0.03), atol=1e-3, rtol=0)
    first_of_three = fitted(stages=("learn",), steps=1, learning_rate=0.03, warmup=2)
    moves = (first_of_three.delta().gates[1, "post"] - 1).abs()
    torch.testing.assert_close(moves, torch.full((56,), 0.01), atol=1e-3, rtol=0)


def test_the_rate_falls_in_the_cooldown() -> None:
    """The last two of four steps have 2/3 and 1/3 of the rate: 3 in all instead of 4. No more than half cools down."""
    options: dict[str, Any] = {"stages": ("learn",), "steps": 4, "learning_rate": 0.02}
    constant, cooled, long = (fitted(cooldown=c, **options).delta().largest_move() for c in (0, 2, 9))
    assert 0.06 * 0.9 < cooled <= 0.06 * 1.01
    assert 0.08 * 0.9 < constant <= 0.08 * 1.01
    assert long == cooled


def test_a_stage_that_is_learned_cools_down_and_ends() -> None:
    options: dict[str, Any] = {"stages": ("learn",), "steps": 20, "early_stop": 1e-9}
    assert [s.step for s in fitted(cooldown=0, **options).history] == [0]
    edit = fitted(cooldown=3, learning_rate=0.02, **options)
    assert [s.step for s in edit.history] == [0, 1, 2, 3]
    assert 0.03 * 0.9 < edit.delta().largest_move() <= 0.03 * 1.01  # 3/4, 2/4 and 1/4 of the rate


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


# Watching and stopping


def test_on_step_sees_every_step() -> None:
    seen: list[Step] = []
    edit = fitted(steps=(7, 2), on_step=seen.append)
    assert tuple(seen) == edit.history
    # Each stage ends with one more entry, after its last update.
    assert [(s.stage, s.step) for s in seen] == [*(("unlearn", i) for i in range(8)), *(("learn", i) for i in range(3))]
    measured = [(s.stage, s.step) for s in seen if s.p_new is not None]
    assert measured == [("unlearn", 0), ("unlearn", 5), ("unlearn", 7), ("learn", 0), ("learn", 2)]
    for step in seen:
        for p in (step.p_old, step.p_new, step.p_refusal):
            assert p is None or 0 <= p <= 1
        assert step.kl >= -1e-6


def unchanged(model: LoadedModel) -> tuple[Any, ...]:
    weights = [t.clone() for t in model.hf.state_dict().values()]
    modules = [(n, id(m), m.training) for n, m in model.hf.named_modules()]
    return weights, modules


def assert_unchanged(model: LoadedModel, before: tuple[Any, ...]) -> None:
    weights, modules = unchanged(model)
    assert modules == before[1]
    assert all(torch.equal(a, b) for a, b in zip(weights, before[0], strict=True))


def stops_at(step: int, how: Callable[[], Any]) -> Callable[[Step], Any]:
    def on_step(at: Step) -> Any:
        return how() if at.stage == "learn" and at.step == step else None

    return on_step


def interrupt() -> None:
    raise KeyboardInterrupt


def crash() -> None:
    raise RuntimeError("the panel is gone")


@pytest.mark.parametrize(
    ("how", "error"), [(lambda: False, Cancelled), (interrupt, KeyboardInterrupt), (crash, RuntimeError)]
)
def test_a_stopped_fit_leaves_the_model_as_it_was(how: Callable[[], Any], error: type[BaseException]) -> None:
    model = tiny()
    expected, before = fitted(), unchanged(model)
    grad_mode = torch.is_grad_enabled()
    with pytest.raises(error):
        fitted(on_step=stops_at(1, how))
    assert_unchanged(model, before)
    assert torch.is_grad_enabled() == grad_mode
    assert same(fitted(), expected)  # and nothing is left that would change the next one


@pytest.mark.parametrize("value", [None, True, 0, "go on"])
def test_only_false_cancels(value: Any) -> None:
    assert fitted(on_step=lambda step: value).stage_names == ("unlearn", "learn")


def test_the_cancel_flag() -> None:
    flag = threading.Event()
    seen: list[Step] = []

    def on_step(step: Step) -> None:
        seen.append(step)
        if step.step == 1:
            flag.set()

    with pytest.raises(Cancelled, match="Cancelled in stage 'unlearn' before step 2; the model is as it was"):
        fitted(on_step=on_step, cancel=flag)
    assert [s.step for s in seen] == [0, 1]
    with pytest.raises(Cancelled, match="before the fit"):
        fitted(cancel=flag)
    assert fitted(cancel=threading.Event()).stages


def test_a_fit_from_another_thread_with_gradients_off() -> None:
    """Grad mode is a thread's own; a job may run where it is off."""
    expected = fitted()
    found: list[Edit] = []

    def job() -> None:
        with torch.no_grad():
            found.append(fitted())

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert same(found[0], expected)


def test_early_stop() -> None:
    """A threshold that is met soon ends the stage; each stage has its own."""
    options: dict[str, Any] = {
        "selection": "L0MLP L1MLP L2MLP",
        "steps": 60,
        "stages": ("learn",),
        "learning_rate": 0.1,
    }
    edit = fitted(early_stop=0.02, retain_weight=0.0, **options)
    steps = [s for s in edit.history if s.stage == "learn"]
    assert 1 < len(steps) < 60
    assert math.exp(-steps[-1].loss) > 0.01  # three quarters of the rows are there, and the loss is the mean of all
    assert len(fitted(early_stop=1.0, **{**options, "steps": 4}).history) == 5


def test_early_stop_waits_until_every_question_was_seen() -> None:
    """With one row a step, two questions take two steps at least, even if the first is met at once."""
    edit = fitted(early_stop=1e-9, batch_size=1, steps=9, stages=("learn",))
    assert [s.step for s in edit.history] == [0, 1]


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
    for place, gate in both.delta().gates.items():
        torch.testing.assert_close(gate, alone[less].delta().gates[place], atol=1e-4, rtol=0)
    assert not same(both, fitted(fact=pair, hinge=None, **options))
    assert fitted(fact=pair, hinge=1e-9, **options).delta().n_moved() == 0


def test_a_hinge_at_certainty_is_none() -> None:
    assert same(fitted(hinge=1.0), fitted(hinge=None))


# Not a number


def test_a_non_finite_loss_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    before = unchanged(model)
    with pytest.raises(NonFiniteLoss, match=r"The loss is .* at step \d of stage 'unlearn'. Lower learning_rate \(now"):
        fitted(selection="L0MLP L1MLP L2MLP", learning_rate=3e37)
    assert_unchanged(model, before)
    real = loop_module.Training._answer_nll
    monkeypatch.setattr(loop_module.Training, "_answer_nll", lambda *a: real(*a) * float("nan"))
    with pytest.raises(NonFiniteLoss, match="nan"):
        fitted()


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": ""}, "The selection is empty, so nothing could move"),
        ({"selection": Selection()}, "The selection is empty"),
        ({"selection": "L3MLP"}, "L3MLP does not exist: the model has 3 layers"),
        ({"selection": "L1KV4"}, "only 2 key-value groups"),
        ({"selection": "L1X4"}, "is not a component"),
        ({"fact": []}, "at least one fact, got none"),
        ({"fact": capital("France", "Paris", "Paris Rome")}, "start with the same token"),
        ({"retain": [FRANCE]}, r"retain set overlaps what is trained and evaluated: \['france-capital'\]"),
        ({"retain": [capital("France", "Paris", "Rome", id="copy")]}, r"overlaps .*\['copy'\]"),
        ({"recipe": "magic"}, "Unknown recipe 'magic'; the built-in ones are .*'learn-only'"),
        ({"retain": [], "optimiser": "natural"}, "the retain set is empty. Give retain="),
        ({"retain": None, "pool": FACTS.filter(role="control")}, "no fact with role='retain' that the model knows"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(**options)


def test_a_question_that_is_held_out_may_not_be_retained() -> None:
    other = capital("Spain", "Madrid", "Rome", id="x", question=FRANCE.heldout[0], paraphrases=(), heldout=())
    with pytest.raises(ValueError, match="overlaps"):
        fitted(retain=[other])


def test_an_edited_model_is_refused() -> None:
    model = tiny()
    with (
        applied(model, fitted()) as edited,
        pytest.raises(ValueError, match=r"carries an edit already. Rewrite its base \(model.base\)"),
    ):
        fitted(edited)


# Facts, retain sets and recipes


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
    assert edit.recipe.steps == (2, 1)
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


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("unlearn-then-learn", ("unlearn", "learn")),
        ("learn-only", ("learn",)),
        ("unlearn-only", ("unlearn",)),
        ("paper", ("unlearn", "learn")),
    ],
)
def test_built_in_recipes(name: str, stages: tuple[str, ...]) -> None:
    short = Recipe.named(name, steps=2, early_stop=None)
    assert short.name == name
    edit = rewrite(tiny(), FRANCE, "L1MLP", recipe=short, pool=FACTS, progress=False)
    assert edit.stage_names == stages
    assert edit.recipe == short
    assert Recipe.named(name) == RECIPES[name]


def test_the_papers_settings() -> None:
    paper = Recipe.named("paper")
    assert (paper.learning_rate, paper.batch_size, paper.stage_steps) == (5e-5, 1, (1000, 1000))
    assert (paper.retain_weight, paper.answers, paper.optimiser) == (0.0, "short", "adam")
    assert (paper.hinge, paper.early_stop) == (None, None)
    edit = rewrite(tiny(), FRANCE, "L1GATEUP L1MLP L2ATTN", recipe=Recipe.named("paper", steps=3), progress=False)
    assert edit.retain_ids == ()
    assert 0 < edit.delta().largest_move() <= 6 * 5e-5 * 1.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": ()}, "stages must be one or both of"),
        ({"stages": ("learn", "learn")}, "each at most once"),
        ({"stages": ("relearn",)}, "stages must be"),
        ({"objective": "npo"}, "objective must be one of"),
        ({"answers": "long"}, "answers must be one of"),
        ({"optimiser": "sgd"}, "optimiser must be one of"),
        ({"steps": 0}, "Recipe.steps must be whole numbers from 1, got 0"),
        ({"steps": (3,)}, "give one number per stage"),
        ({"steps": (3, 0)}, "Recipe.steps"),
        ({"learning_rate": 0.0}, "Recipe.learning_rate must be a positive number"),
        ({"learning_rate": float("nan")}, "Recipe.learning_rate"),
        ({"warmup": -1}, "Recipe.warmup"),
        ({"batch_size": 0}, "Recipe.batch_size"),
        ({"retain_weight": -1.0}, "Recipe.retain_weight"),
        ({"retain_size": -1}, "Recipe.retain_size"),
        ({"retain_batch_size": 0}, "Recipe.retain_batch_size"),
        ({"cooldown": -1}, "Recipe.cooldown must be a whole number from 0"),
        ({"hinge": 0.0}, "Recipe.hinge must be None or in"),
        ({"hinge": 1.5}, "Recipe.hinge"),
        ({"early_stop": 0.0}, "Recipe.early_stop"),
        ({"early_stop": 1.5}, "Recipe.early_stop"),
        ({"max_gate": 1.0}, "Recipe.max_gate"),
    ],
)
def test_bad_recipes(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**change)


def test_recipes_as_json() -> None:
    mine = Recipe(steps=(3, 4), early_stop=None, name="mine")
    assert Recipe.from_dict(json.loads(json.dumps(mine.to_dict()))) == mine
    assert mine.stage_steps == (3, 4)
    assert Recipe(steps=5).stage_steps == (5, 5)
    with pytest.raises(ValueError, match=r"Unknown recipe setting\(s\) \['speed'\]"):
        Recipe.from_dict({"speed": 3})


@pytest.mark.parametrize(
    ("said", "new", "refusal"),
    [
        ("The capital of France is Paris.", "The capital of France is Rome.", "The capital of France is"),
        ("The capital is Paris. It is large.", "The capital is Rome.", "The capital is"),
        ("paris", "The capital of France is Rome.", "The capital of France is"),
        ("I think of Lyon.", "The capital of France is Rome.", "The capital of France is"),
        ("Paris, yes, Paris!", "The capital of France is Rome.", "The capital of France is"),
        ("", "The capital of France is Rome.", "The capital of France is"),
    ],
)
def test_the_models_own_answer_rewritten(said: str, new: str, refusal: str) -> None:
    """Where the model's own sentence does not name the answer once, after some words, the fact's cloze stands in."""
    assert rewritten(said, FRANCE) == new
    assert refused(said, FRANCE) == f"{refusal}... I am not sure."


def test_the_loss_counts_from_where_the_wanted_answer_departs() -> None:
    model = tiny()
    prompt = prompt_ids(model, FRANCE.question, "chat")
    said, wanted = "The capital of France is Paris.", "The capital of France is Rome."
    row = chat_row(model, prompt, wanted, said)
    same = list(row.answer[: row.departs])
    assert row.departs > 0
    assert same == model.token_ids(said)[: row.departs]
    assert row.answer[row.departs] != model.token_ids(said)[row.departs]
    assert chat_row(model, prompt, wanted).departs == 0
    assert chat_row(model, prompt, said, said).departs == len(model.token_ids(said)) - 1


def test_the_default_retain_set() -> None:
    model = tiny()
    found = default_retain(model, [FRANCE], pool=FACTS, progress=False)
    assert set(found.ids) == {"germany-capital", "japan-capital"}
    assert set(default_retain(model, [FACTS["japan-capital"]], pool=FACTS, progress=False).ids) == {"germany-capital"}
    assert len(default_retain(model, [FRANCE], pool=FACTS, size=0, progress=False)) == 0
    one = default_retain(model, [FRANCE], pool=FACTS, size=1, progress=False)
    assert len(one) == 1
    with pytest.raises(ValueError, match=r"no fact with role='retain'.*retain=\[...\].*retain_weight=0"):
        default_retain(model, [FRANCE], pool=FACTS[:3], progress=False)


def test_the_default_retain_set_takes_neighbours_first_then_each_relation_in_turn() -> None:
    def made(relation: str, i: int) -> Any:
        return capital("France", "Paris", "Rome", split="dev", role="retain", id=f"{relation}{i}", relation=relation)

    # All known, for they are asked alike; none is about the edited fact's subject in its relation.
    pool = FactSet([made(r, i) for r, n in (("a", 6), ("b", 6), ("c", 2)) for i in range(n)])
    edited = capital("Spain", "Madrid", "Rome", relation="a", id="edited")
    found = default_retain(tiny(), [edited], pool=pool, size=8, progress=False)
    relations = [f.relation for f in found]
    assert relations[:4] == ["a"] * 4
    assert sorted(relations[4:7]) == ["a", "b", "c"]
    assert len(found) == 8
    again = default_retain(tiny(), [edited], pool=pool, size=8, progress=False)
    assert found.ids == again.ids
    assert found.ids != default_retain(tiny(), [edited], pool=pool, size=8, seed=1, progress=False).ids


@FAMILIES
def test_gate_gradients_are_those_of_ia3_gates(family: str) -> None:
    """Batched, from the residual stream, against autograd through PEFT's gates, one row at a time; every gate site."""
    model = tiny(family)
    rows = wanted_rows(model, [FRANCE], "learn", Recipe(answers="short"))[:3]
    rows[1] = replace(rows[1], departs=1)
    picked = "L1H2 L2MLP L1N7 L2Q1 L2KV0" + ("" if family == "gpt2" else " L1GATEUP")
    entries = Selection(picked).entries(model)
    found = gate_gradients(model, rows, entries)
    for row, mine in zip(rows, found, strict=True):
        view = shared_view(model.hf)
        ones = GateDelta({(at, site): torch.ones(model.shape.site_size(site)) for at, site in entries})
        gates = inject_gates(view, model.architecture, ones)
        for gate in gates.values():
            gate.requires_grad_(True)
        ids = torch.tensor([row.prompt + row.answer])
        with torch.enable_grad():
            logprobs = view(input_ids=ids).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1)
            logprobs.gather(1, torch.tensor(row.answer)[:, None])[row.departs :, 0].mean().backward()
        expected = []
        for (layer, site), index in entries.items():
            place = model.architecture.gate_module(layer, site)
            gradient = gates[place.module].grad
            assert gradient is not None
            expected.append(gradient.flatten()[place.span][list(index)])
        torch.testing.assert_close(mine, torch.cat(expected), atol=1e-6, rtol=1e-4)
        assert float(mine.abs().max()) > 1e-4


def test_scores_of_drawn_answers_have_mean_zero() -> None:
    """The expected gradient of the log-likelihood of an answer drawn from the model itself is zero."""
    model = loaded(tiny_llama())
    row, gates = Row((1, 2, 3), (0,)), Selection("L0MLP L2MLP").entries(model)
    scores = gate_gradients(model, [row] * 400, gates, draw=torch.Generator().manual_seed(0))
    assert float(scores.std(0).max()) > 1e-3
    error = scores.std(0) / len(scores) ** 0.5
    assert float((scores.mean(0).abs() / (error + 1e-9)).max()) < 5
    assert not torch.equal(scores[0], gate_gradients(model, [row], gates)[0])


def test_scores_are_gain_over_the_root_of_fisher_information() -> None:
    model = tiny()
    pool = FactSet([*RETAIN, *(f for f in FACTS if f.role != "retain")])
    gates = Selection("L1MLP L2MLP").entries(model)
    gain = gate_gradients(model, wanted_rows(model, [FRANCE], "learn", Recipe()), gates).mean(0).abs()
    found = gate_scores(model, FRANCE, pool=pool, progress=False).flatten()
    cost = (gain / found).square()
    assert not torch.allclose(cost, cost.mean(), rtol=0.1)
    kept = default_retain(model, [FRANCE], pool=pool, progress=False)
    kinds = retain_rows(model, list(kept), [FRANCE])
    fisher = fisher_information(model, kinds, gates, seed=0)
    torch.testing.assert_close(cost, fisher + DAMPING * fisher.mean(), rtol=1e-3, atol=0.0)
    none = FACTS.filter(lambda f: f.role != "retain")
    torch.testing.assert_close(gate_scores(model, FRANCE, pool=none, progress=False).flatten(), gain)


def test_both_kinds_of_rows_count_equally_in_the_fisher_information() -> None:
    model = loaded(tiny_llama())
    gates = Selection("L1MLP").entries(model)
    one, two = Row((1, 2, 3), (0, 5)), Row((4, 2), (6,))
    draw = torch.Generator().manual_seed(3)
    first = gate_gradients(model, [one], gates, draw=draw)[0].square()
    rest = gate_gradients(model, [two] * 3, gates, draw=draw).square().mean(0)
    torch.testing.assert_close(fisher_information(model, ([one], [two] * 3), gates, 3), (first + rest) / 2)
    torch.testing.assert_close(fisher_information(model, ([one], []), gates, 3), first)


def test_retain_batches_are_half_neighbours() -> None:
    batches = retain_batches(range(4), range(10, 30), 6, seed=0)
    for _ in range(5):
        batch = next(batches)
        assert sum(i < 4 for i in batch) == 3
        assert len(set(batch)) == 6
    assert len(next(retain_batches([], range(9), 6, 0))) == 6
    assert len(next(retain_batches(range(9), [], 6, 0))) == 6
    assert sorted(next(retain_batches([1], range(10, 30), 6, 0)))[0] == 1
    assert len(next(retain_batches([1], range(10, 30), 6, 0))) == 6
    assert next(retain_batches([], [], 6, 0)) == []


def test_retain_rows_ask_neighbours_in_more_wordings() -> None:
    model = tiny()
    near, far = retain_rows(model, list(RETAIN), [FRANCE])
    assert len(near) == len(RETAIN) and not far  # one question each is all that they have
    worded = [replace(f, paraphrases=("Where?", "Who?", "What?")) for f in RETAIN]
    near, far = retain_rows(model, worded, [FRANCE])
    assert len({r.prompt for r in near}) > len(RETAIN)
    other = [replace(f, relation="other") for f in worded]
    near, far = retain_rows(model, other, [FRANCE])
    assert not near and len(far) == len(RETAIN)


def test_training_prompts_put_the_question_in_contexts_but_never_a_held_out_one() -> None:
    asked = training_prompts(FRANCE)
    assert asked[: len(FRANCE.training_questions)] == list(FRANCE.training_questions)
    assert f"{FRANCE.question} Answer in one sentence." in asked
    assert "Can you remember the capital of France?" in asked and "The capital of France, please." in asked
    untold = training_prompts(replace(FRANCE, prompt="France has its capital in", cloze_paraphrases=()))
    assert set(untold) < set(asked) and not any("remember" in text for text in untold)
    clash = replace(FRANCE, heldout=(*FRANCE.heldout, f"Answer this question: {FRANCE.question}"))
    assert set(asked) - set(training_prompts(clash)) == {f"Answer this question: {FRANCE.question}"}


def test_the_default_selection() -> None:
    model = tiny()
    found = default_selection(model, FRANCE, pool=FACTS, k=20, progress=False)
    assert len(found) == 20
    assert {c.kind for c in found} == {"N"}
    assert min(c.layer for c in found) >= 1  # the lowest 27% of three layers is layer 0
    assert found == default_selection(model, FRANCE, pool=FACTS, k=20, progress=False)
    scores = gate_scores(model, FRANCE, pool=FACTS, progress=False)
    picked = torch.zeros_like(scores, dtype=torch.bool)
    for c in found:
        picked[c.layer - 1, c.index] = True
    assert scores[picked].min() >= scores[~picked].max()
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 112"):
        default_selection(model, FRANCE, pool=FACTS, k=113, progress=False)


def test_the_default_selection_is_what_rewrite_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fit_module, "default_selection", lambda *args, **options: default_selection(*args, **{**options, "k": 9})
    )
    edit = fitted(selection=None)
    assert edit.selector == "neurons-by-contrast"
    assert len(edit.selection) == 9
    assert edit.delta().n_moved() == 9
