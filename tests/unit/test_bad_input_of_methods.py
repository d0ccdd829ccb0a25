"""What every method refuses: the message names what was given, what is allowed or wrong, and what to do; and nothing is
lost or left behind, whatever ends a fit."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.families import model_of
from tests.helpers.short_recipes import in_short
from tests.helpers.small_fits import FACTS, FRANCE, RETAIN, assert_unchanged, unchanged
from tests.helpers.tiny_facts import MAKERS, knowing, tiny
from tests.unit.test_solved_refusals import with_neuron
from workbench.editing.covariance import TooFewTokens
from workbench.editing.solved.formulas import SingularCovariance, VanishingDenominator
from workbench.editing.training.loop import NonFiniteLoss
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Edit, Step, TrainedRecipe
from workbench.types.cancelling import Cancelled

METHODS = wb.recipes.METHODS
CLOSED = ("rome", "memit", "alphaedit", "emmet", "int-attn", "consolidate")
KEYED = (*CLOSED, "keyed")
WITHOUT_STEPS = ("ultraedit", "in-context")
pytestmark = pytest.mark.filterwarnings("ignore:The target vector did not move")


@pytest.fixture(autouse=True, scope="module")
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def of(method: str, **changes: Any) -> BaseRecipe:
    return in_short(METHODS[method].recipe(), **{"mismatched": 1, **changes})


def having(*settings: str) -> list[str]:
    """The methods whose recipes have one of these settings."""
    return [name for name, m in METHODS.items() if {f.name for f in fields(m.recipe)} & {*settings}]


def made(recipe: BaseRecipe, selection: Any = None, model: LoadedModel | None = None, **options: Any) -> Edit:
    given: dict[str, Any] = {"retain": RETAIN, "pool": FACTS, "progress": False, **options}
    return wb.rewrite(model or tiny(), given.pop("fact", FRANCE), selection, recipe=recipe, **given)


def refused_alike(words: str, recipe: BaseRecipe, selection: Any = None, model: LoadedModel | None = None) -> None:
    """By the edit and by its dry run, in the same words."""
    given: dict[str, Any] = {"retain": RETAIN, "pool": FACTS, "progress": False}
    with nothing_is_lost(model), pytest.raises(ValueError, match=words) as edit:
        made(recipe, selection, model)
    with nothing_is_lost(model), pytest.raises(ValueError) as plan:
        wb.dry_run(model or tiny(), FRANCE, selection, recipe=recipe, **given)
    assert str(plan.value) == str(edit.value)


@contextmanager
def nothing_is_lost(model: LoadedModel | None = None) -> Iterator[None]:
    """The model's weights, modules, hooks and gradients, and what it answers, are as they were."""
    model = model or tiny()
    before, said = unchanged(model), wb.ask(model, FRANCE.question)
    yield
    assert_unchanged(model, before)
    assert not any(p.requires_grad for p in model.hf.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())
    model.cache.clear()
    assert wb.ask(model, FRANCE.question) == said


@pytest.mark.parametrize("method", KEYED)
def test_too_few_tokens(method: str) -> None:
    words = r"The texts have 20 tokens, and the \w+ of layer \d has \d+ inputs: .*fewer than \d+ .*covariance_tokens of"
    with nothing_is_lost(), pytest.raises(TooFewTokens, match=words):
        made(of(method, covariance_tokens=20))


@pytest.mark.parametrize("method", [m for m in KEYED if m != "consolidate"])  # its closed form has a ridge of its own
def test_a_singular_covariance(method: str) -> None:
    words = r"The covariance of layer \d \S+_proj is singular: rank \d+ of \d+ columns. Measure it on more tokens, or"
    with nothing_is_lost(), pytest.raises(SingularCovariance, match=words):
        made(of(method, covariance_tokens=20, min_tokens=1, ridge=0.0, protect=0.0))


@pytest.mark.parametrize("method", KEYED)
def test_a_vanishing_denominator_has_its_number_and_can_be_forced(method: str) -> None:
    faint, dead = with_neuron(1e-6), with_neuron(0.0)
    words = r"at layer 1 mlp.down_proj is \d\S*e-\d+, where an ordinary token has about 1: the 1 selected columns.*"
    with nothing_is_lost(faint), pytest.raises(VanishingDenominator, match=f"{words}or pass force=True"):
        made(of(method, min_tokens=1), "L1N5", faint)
    if method not in ("alphaedit", "consolidate"):  # of one column AlphaEdit can keep nothing and move it, too
        assert made(of(method, min_tokens=1, force=True), "L1N5", faint).delta().largest_move() > 1
    with nothing_is_lost(dead), pytest.raises(VanishingDenominator, match=r"is 0, where .*None for whole modules\)\.$"):
        made(of(method, min_tokens=1, force=True), "L1N5", dead)


@pytest.mark.parametrize("method", having("layers", "layer", "answer_layers"))
def test_a_layer_that_the_model_lacks(method: str) -> None:
    one = "layer" in {f.name for f in fields(METHODS[method].recipe)}
    recipe = of(method, **({"layer": 9} if one else {"layers": (9,)}))
    refused_alike(r"9.*(3 layers \(0 to 2\)|layers 0 to 2)", recipe)
    with pytest.raises(ValueError, match=r"Recipe.layers? must be None,? or .*from 0.*got"):
        of(method, **({"layer": -1} if one else {"layers": (-1,)}))


@pytest.mark.parametrize("method", METHODS)
def test_a_component_that_the_model_lacks(method: str) -> None:
    refused_alike(r"L9H1 does not exist: .*3 layers", of(method), "L9H1")


@pytest.mark.parametrize("selection", ["L1Q2 L1K0", "L1K0 L1N5"])
@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("ia3", "lora", "full", "in-context")])
def test_a_selection_without_output_columns(method: str, selection: str) -> None:
    """Whatever else is in it: nothing that was picked is left out in silence."""
    refused_alike(rf"{selection[:4]}.*[Hh]eads.*neurons", of(method, force=True, min_tokens=1), selection)


@pytest.mark.parametrize("published", [True, "fast"])
@pytest.mark.parametrize("method", ["rome", "memit"])
def test_heads_for_what_has_no_attention_form(method: str, published: Any) -> None:
    words = rf"published={published!r} is of MLPs, and the selection has attention in layer 1. Select neurons or MLPs"
    with nothing_is_lost(), pytest.raises(ValueError, match=words):
        made(of(method, published=published), "L1H2")
    with nothing_is_lost(), pytest.raises(ValueError, match=r"balance=0 writes MLPs only, and the selection L1H2"):
        made(of("int-attn", balance=0), "L1H2")
    refused_alike(r"A context changes no component.*L1H2.*Leave it out", of("in-context"), "L1H2")


@pytest.mark.parametrize("method", [m for m in METHODS if not METHODS[m].recipe.takes_number])
def test_a_number_for_what_has_no_selector(method: str) -> None:
    refused_alike(r"5.*selects nothing. (Give|Leave)", of(method), 5)


@pytest.mark.parametrize("method", ["grace", "wise"])
def test_two_modules_for_what_has_one(method: str) -> None:
    refused_alike("names layer 0 MLP, layer 1 attention", of(method), "L0MLP L1H0")


@pytest.mark.parametrize("method", ["ia3", "klue", "kuda", "rmu"])
def test_neurons_of_a_model_that_has_none(method: str) -> None:
    words = "(No neurons can be chosen|There is no 'post' projection to gate).*mixture of experts"
    refused_alike(words, of(method), model=model_of("mixtral"))


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if issubclass(m.recipe, TrainedRecipe)])
def test_a_retain_set_that_holds_what_is_taught(method: str) -> None:
    given: dict[str, Any] = {"retain": [FRANCE], "pool": FACTS, "progress": False}
    for ask in (wb.rewrite, wb.dry_run):
        with nothing_is_lost(), pytest.raises(ValueError, match=r"overlaps what is trained and eval.*france-capital"):
            ask(tiny(), FRANCE, recipe=of(method, min_tokens=1), **given)


@pytest.mark.parametrize("method", having("learning_rate"))
def test_a_learning_rate_that_float32_does_not_hold(method: str) -> None:
    kind = METHODS[method].recipe
    if not issubclass(kind, TrainedRecipe):
        return
    for rate in (1e38, 3e38, float("inf"), 10**400):
        with pytest.raises(
            ValueError, match=rf"Recipe.learning_rate must be at most \d+e\+3.*, got {re.escape(repr(rate))}"
        ):
            of(method, learning_rate=rate)
    with pytest.raises(ValueError, match=r"Recipe.learning_rate must be a positive number, got nan"):
        of(method, learning_rate=float("nan"))
    with nothing_is_lost(), suppress(NonFiniteLoss):
        made(of(method, learning_rate=kind.most_rate, warmup=0, min_tokens=1, force=True), "L1MLP")


@pytest.mark.parametrize("method", [*KEYED, "grace"])
def test_a_subject_that_is_missing_from_a_context(method: str) -> None:
    """Where all is taught at the subject. GRACE takes the texts that name it, and there must be one."""
    nameless = replace(FRANCE, question="What is its capital?", paraphrases=())
    with nothing_is_lost(), pytest.raises(ValueError, match=r"'France' is not in .*[Ii]ts capital"):
        made(of(method, min_tokens=1, answers="short", layers=(1,) if method in CLOSED else None), fact=nameless)


@pytest.mark.parametrize("method", CLOSED)
def test_a_target_vector_that_is_not_finite(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.editing.solved.target._Search.backward", lambda *_: (float("nan"), 0.0))
    with (
        nothing_is_lost(),
        pytest.raises(NonFiniteLoss, match=r"not finite at step 0 \(loss nan\). Lower the recipe's"),
    ):
        made(of(method, min_tokens=1))


# However a fit ends


def by_flag(flag: threading.Event) -> Callable[[Step], Any]:
    return lambda _: flag.set()


def by_return(flag: threading.Event) -> Callable[[Step], Any]:
    return lambda _: False


def by_key(flag: threading.Event) -> Callable[[Step], Any]:
    def press(_: Step) -> None:
        raise KeyboardInterrupt

    return press


@pytest.mark.parametrize("how", [by_flag, by_return, by_key])
@pytest.mark.parametrize("method", [m for m in METHODS if m not in WITHOUT_STEPS])
def test_ended_in_the_middle(method: str, how: Callable[[threading.Event], Any]) -> None:
    flag = threading.Event()
    selection = "L1MLP" if METHODS[method].recipe.selects else None
    recipe = of(method, min_tokens=1, force=True)
    with nothing_is_lost(), pytest.raises(KeyboardInterrupt if how is by_key else Cancelled):
        made(recipe, selection, on_step=how(flag), cancel=flag)


@pytest.mark.parametrize("how", [by_flag, by_return, by_key])
def test_ended_while_a_closed_form_is_trained_on(how: Callable[[threading.Event], Any]) -> None:
    flag, seen = threading.Event(), list[str]()
    end = how(flag)

    def watch(step: Step) -> Any:
        seen.append(step.stage)
        return end(step) if step.stage == "consolidate" else None

    with nothing_is_lost(), pytest.raises(KeyboardInterrupt if how is by_key else Cancelled):
        made(of("consolidate", min_tokens=1, force=True), on_step=watch, cancel=flag)
    assert seen[0] == "edit" and seen[-1] == "consolidate" and seen.count("consolidate") == 1


@pytest.mark.parametrize("method", METHODS)
def test_cancelled_before_it_begins(method: str) -> None:
    flag = threading.Event()
    flag.set()
    with nothing_is_lost(), pytest.raises(Cancelled, match="the model is as it was"):
        made(of(method, min_tokens=1, force=True), "L1MLP" if METHODS[method].recipe.selects else None, cancel=flag)


@pytest.mark.parametrize("method", ["grace", "wise", "in-context"])
def test_what_is_no_weight_cannot_be_exported(method: str, tmp_path: Path) -> None:
    """No adapter is begun; the message says what can be done; the edit itself can be saved, and is as it was."""
    instead = r"give the text itself \(edit.delta\(\).context\)" if method == "in-context" else r"edit.save\(folder\)"
    model = knowing(MAKERS["llama"]())
    edit = made(of(method), model=model)
    with nothing_is_lost(model), pytest.raises(ValueError, match=f"adapter nor merged weights.*{instead}"):
        edit.to_peft(tmp_path / "adapter", model=model)
    with nothing_is_lost(model), pytest.raises(ValueError, match=f"merged weights.*{instead}"):
        wb.merge(model, edit, tmp_path / "merged")
    assert not list(tmp_path.iterdir())
    assert wb.load_edit(edit.save(tmp_path / "edit")).id == edit.id
