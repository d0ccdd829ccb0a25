"""How a fit ends: learned, stopped, crashed, no longer a number, or refused at once; the model stays as it was."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.deltas import gates_of, same_gates
from tests.helpers.small_fits import (
    FACTS,
    FRANCE,
    RETAIN,
    SPAIN,
    assert_unchanged,
    fitted,
    plain_nll,
    recipe,
    same,
    unchanged,
)
from tests.helpers.tiny_facts import capital, tiny
from workbench.editing.applied import applied
from workbench.editing.methods import ia3
from workbench.editing.selector import default_selection
from workbench.editing.training import step_loss
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.learned import least_learned
from workbench.editing.training.loop import NonFiniteLoss, Training
from workbench.editing.training.objectives import Forgotten
from workbench.editing.training.passes import Passes, answer_nll
from workbench.files.edits import load_edit
from workbench.language.prompts import answer_ids, prompt_ids
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact, OtherFit, Selection, StageName, Step
from workbench.types.cancelling import Cancelled


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


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


# Learned well enough


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


def test_a_learned_stage_takes_its_mean_and_ends() -> None:
    options: dict[str, Any] = {"stages": ("learn",), "steps": 20, "learning_rate": 0.02, "early_stop": 1e-9}
    assert [s.step for s in fitted(average=0, **options).history] == [0]
    edit = fitted(average=3, **options)
    assert [s.step for s in edit.history] == [0, 1, 2, 3]
    assert 0.04 * 0.9 < edit.delta().largest_move() <= 0.04 * 1.01  # the mean of 1, 2 and 3 steps


def test_what_stops_a_fit_gets_the_step_that_it_saw() -> None:
    """``compare`` reads every arm at one mark; a mean would lie behind it."""
    seen: list[Edit] = []

    def third(edit: Edit) -> bool:
        seen.append(edit)
        return len(seen) == 3

    edit = fitted(stages=("learn",), steps=4, average=2, stop=third)
    assert same(edit, seen[-1])


# Not a number


def test_a_non_finite_loss_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    before = unchanged(model)
    with pytest.raises(NonFiniteLoss, match=r"The loss is .* at step \d of stage 'unlearn'. Lower learning_rate \(now"):
        fitted(selection="L0MLP L1MLP L2MLP", learning_rate=3e37)
    assert_unchanged(model, before)
    monkeypatch.setattr(step_loss, "answer_nll", lambda *a: answer_nll(*a) * float("nan"))
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
        ({"retain": [], "optimiser": "adam"}, "weighs the KL on a retain set, but the retain set is empty"),
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


def test_a_model_that_was_changed_without_an_edit_is_refused() -> None:
    model = tiny()
    tuned = LoadedModel(model.hf, model.tokenizer, name="tuned", architecture=model.architecture, base=model)
    with pytest.raises(ValueError, match=r"was changed without an edit. Rewrite its base \(model.base\)"):
        fitted(tuned)


# Drawing back


def quartile(model: LoadedModel, edit: Edit, strength: float) -> float:
    """The probability per token that three quarters of the training prompts' taught answers reach, by plain passes."""
    end = model.tokenizer.eos_token_id
    answer = [*answer_ids(model, "Rome.", "chat"), end]
    with applied(model, edit, strength=strength) as edited:
        found = sorted(
            math.exp(-plain_nll(edited.hf, prompt_ids(model, question, "chat"), answer))
            for question in FRANCE.training_questions
        )
    return found[len(found) // 4]


@pytest.mark.parametrize("stages", [("learn",), ("unlearn", "learn")])
def test_an_edit_is_drawn_back_to_what_it_takes(stages: tuple[StageName, ...]) -> None:
    """To the least 32nd of its strength that keeps the level: with all stages on a line, and the earlier ones kept."""
    model, options = tiny(), {"stages": stages, "steps": 30, "learning_rate": 0.1, "hinge": None}
    whole = fitted(model, draw_back=None, **options)
    base, top = quartile(model, whole, 0), quartile(model, whole, 1)
    wanted = 0.5 * (base + top)
    assert base < 0.5 * top
    edit = fitted(model, draw_back=wanted, **options)
    strength = edit.strength
    assert 0 < strength < 1 and strength * 32 == int(strength * 32)
    assert edit.shortfall is None and edit.learned == pytest.approx(top, rel=1e-3)
    assert quartile(model, edit, 1) >= wanted > quartile(model, whole, strength - 1 / 32)
    gates, line = gates_of(edit.delta()), gates_of(whole.delta(strength=strength))
    assert gates.keys() == line.keys()
    for place, gate in gates.items():
        torch.testing.assert_close(gate, line[place], atol=1e-6, rtol=0)
    for one, other in zip(edit.stages[:-1], whole.stages[:-1], strict=True):
        assert same_gates(one.delta, other.delta)
    last = edit.history[-1]
    with applied(model, edit) as edited:
        nll = plain_nll(
            edited.hf,
            prompt_ids(model, FRANCE.question, "chat"),
            [*answer_ids(model, "Rome.", "chat"), model.tokenizer.eos_token_id],
        )
    assert last.p_new == pytest.approx(math.exp(-nll), rel=1e-3)


def test_an_edit_that_has_not_reached_the_level_is_not_drawn_back() -> None:
    edit = fitted(draw_back=1.0)
    unwatched = fitted(draw_back=None)
    assert same(edit, unwatched)
    assert edit.strength == 1
    learned = edit.learned
    assert (
        learned is not None and 0 < learned < 1 and f"P = {learned:.2g} per token, 0.8 is wanted" in str(edit.shortfall)
    )
    assert "gates moved, not fully learned, base" in repr(edit)
    assert unwatched.shortfall is None and "learned" not in repr(unwatched)


def test_every_stage_says_what_it_reached(tmp_path: Path) -> None:
    """As surely as its rows are learned with the stage's last gates, of the last one before it was drawn back."""
    edit, unwatched = fitted(draw_back=1.0), fitted(draw_back=None)
    assert list(edit.reached) == ["unlearn", "learn"] and edit.reached["learn"] == edit.learned
    assert unwatched.reached == edit.reached and 0 < edit.reached["unlearn"] < 1
    short = replace(edit, reached={"unlearn": 0.25, "learn": 0.5}, learned=0.5)
    assert list(short.shortfalls) == ["unlearn", "learn"] and short.shortfalls["learn"] == short.shortfall
    assert "P = 0.25 per token, and push on up to 0.8" in short.shortfalls["unlearn"]
    assert list(replace(edit, reached={"unlearn": 0.9}, learned=None).shortfalls) == []
    assert load_edit(edit.save(tmp_path / "edit")).reached == edit.reached
    alone = fitted(stages=("unlearn",), steps=2, draw_back=None)
    with_more = fitted(stages=("unlearn",), steps=30, draw_back=None)
    assert alone.reached["unlearn"] < with_more.reached["unlearn"]


def test_what_the_default_neurons_do_not_teach_is_fitted_again_with_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(*given: Any, k: int = 9, **options: Any) -> Selection:
        return default_selection(*given, k=k, **options)

    monkeypatch.setattr(ia3, "default_selection", few)
    monkeypatch.setattr(ia3, "MORE_NEURONS", 30)
    hard: dict[str, Any] = {"name": "hard", "draw_back": 1.0}
    monkeypatch.setitem(ia3.RECIPES, "hard", recipe(**hard))
    stages, (first, last) = ia3.RECIPES["hard"].stages, ia3.RECIPES["hard"].stage_steps
    seen: list[Step] = []
    edit = fitted(selection=None, on_step=seen.append, **hard)
    assert len(edit.selection) == 30 and edit.recipe.stage_steps == (first, 2 * last)
    assert same(edit, fitted(selection=30, steps=(first, 2 * last), **hard))
    assert tuple(seen[-len(edit.history) :]) == edit.history
    assert [s.step for s in seen if s.stage == stages[1]] == [*range(last + 1), *range(2 * last + 1)]

    first_fit, alone = edit.first_fit, fitted(selection=9, **hard)
    assert first_fit is not None and (first_fit.neurons, first_fit.steps) == (9, 3)
    assert first_fit.learned == alone.learned
    assert edit.asked_recipe == alone.recipe == alone.asked_recipe
    other_steps = fitted(selection=None, **hard, steps=2)
    for single in (alone, other_steps, fitted(**hard), fitted(selection=None, draw_back=None)):
        assert single.first_fit is None and len(single.selection) < 30
    learned = fitted(selection=None, name="hard", draw_back=1e-9)
    assert learned.shortfall is None and len(learned.selection) == 9
    monkeypatch.setattr(ia3, "MORE_NEURONS", 8000)
    assert len(fitted(selection=None, **hard).selection) == 84  # half of the model's

    # A second fit that goes wrong, or teaches less, is not taken; one that is cancelled ends all.
    def breaks(step: Step) -> None:
        seen.append(step)
        if sum(s.step == 0 and s.stage == stages[0] for s in seen) == 2:
            raise NonFiniteLoss("no number")

    seen.clear()
    kept = fitted(selection=None, on_step=breaks, **hard)
    assert same(kept, alone) and kept.second_fit == OtherFit(error="no number")
    seen.clear()
    with pytest.raises(Cancelled):
        fitted(selection=None, on_step=lambda s: seen.append(s) or len(seen) < 12, **hard)
    better = ia3.better(alone, lambda: replace(alone, learned=0.0))
    assert same(better, alone) and better.second_fit is not None and better.second_fit.learned == 0
    assert alone.second_fit is None


def test_nothing_is_to_be_learned_where_the_last_stage_forgets() -> None:
    edit = fitted(objective="npo", stages=("unlearn",), hinge=0.8, draw_back=1.0)
    assert edit.learned is not None and edit.learned < 1 and edit.shortfall is None


def training_of(*facts: Fact, **changes: Any) -> Training:
    return Training(FitRows(tiny(), facts, recipe(**changes), retain=RETAIN), recipe(**changes), 0)


def test_a_joint_edit_has_reached_what_its_hardest_fact_has() -> None:
    """One quartile over all facts' prompts would be met by the many that are learned."""
    many = replace(FRANCE, paraphrases=tuple(f"The capital, of {n} towns, is which?" for n in range(9)))
    _, by_fact = training_of(many, replace(SPAIN, paraphrases=())).goal_of("learn")
    learned, [hard] = by_fact
    assert len(learned) >= 10
    assert least_learned(by_fact, {**dict.fromkeys(learned, 0.95), hard: 0.01}) == 0.01


def test_what_was_never_said_does_not_count_as_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts after which the base does not give the old answer say nothing of how far an edit may be drawn back."""
    training = training_of(FRANCE, objective="npo", stages=("unlearn",), hinge=0.8)
    [rows] = training.wanted["unlearn"]
    monkeypatch.setattr(Passes, "nll", lambda self, rows, prefix: torch.tensor([9.0] * (len(rows) - 1) + [0.0]))
    goal, by_fact = training.goal_of("unlearn")
    assert len(rows) > 1 and by_fact == [[rows[-1]]]
    assert isinstance(goal, Forgotten) and [*goal.base.values()] == [9.0] * (len(rows) - 1) + [0.0]


def test_a_fit_that_stop_ended_is_not_drawn_back() -> None:
    options: dict[str, Any] = {"stages": ("learn",), "steps": 30, "learning_rate": 0.1, "hinge": None}
    seen: list[Edit] = []
    edit = fitted(draw_back=1e-6, stop=lambda edit: seen.append(edit) or len(seen) == 20, **options)
    assert same(edit, seen[-1]) and len(seen) == 20


def test_drawing_back_can_be_cancelled() -> None:
    class Later:
        """Set once the last step is done."""

        done = False

        def is_set(self) -> bool:
            return self.done

    flag = Later()

    def on_step(step: Step) -> None:
        flag.done = step.step == 29

    model = tiny()
    before = unchanged(model)
    with pytest.raises(Cancelled, match="drawn back"):
        fitted(model, stages=("learn",), steps=30, learning_rate=0.1, draw_back=1e-6, cancel=flag, on_step=on_step)
    assert_unchanged(model, before)
