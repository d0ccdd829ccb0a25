"""One memory of a model: it goes with the model and with its weights, and stays within its budget."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import ref

import pytest
import torch

from tests.helpers.tiny import loaded, tiny_llama
from tests.helpers.tiny_facts import edit_of, some_gates
from workbench.editing.applied import Dial, applied
from workbench.language import generation
from workbench.language.generation import Completion, greedy_answers
from workbench.language.scoring import continuation_probabilities
from workbench.models.cache import BUDGET, ModelCache
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.models.lru import byte_size
from workbench.models.views import own_layer_weights, shared_view

TEXT = ((5, 6, 7),)
KIB = 1024


def model_with(*names: str) -> LoadedModel:
    """A model in whose cache these words have numbers, from 0."""
    model = loaded(tiny_llama())
    for number, name in enumerate(names):
        model.cache.deviations.get_or_compute(name, lambda number=number: float(number))
    return model


def block(kib: int) -> torch.Tensor:
    """A tensor of so many KiB."""
    return torch.zeros(kib * KIB // 4)


# Tables


def test_a_value_is_computed_once() -> None:
    cache, asked = loaded(tiny_llama()).cache, []

    def lengths(words: Sequence[Any]) -> list[float]:
        asked.append(list(words))
        return [float(len(word)) for word in words]

    assert cache.deviations.get_or_compute_all(["a", "bb", "a"], lengths) == [1, 2, 1]
    assert cache.deviations.get_or_compute_all(["ccc", "bb"], lengths) == [3, 2]
    assert cache.deviations.get_or_compute_all(["a", "ccc"], lengths) == [1, 3]
    assert asked == [["a", "bb"], ["ccc"]]
    assert cache.deviations.get("bb") == 2 and cache.deviations.get("d") is None
    assert cache.deviations.get_all(["d", "a"]) == {"a": 1}


def test_each_table_has_keys_of_its_own() -> None:
    cache = loaded(tiny_llama()).cache
    cache.nll.get_or_compute(((1,), (2,)), lambda: 0.5)
    cache.ends.get_or_compute(((1,), (2,)), lambda: 0.25)
    assert (cache.nll.get(((1,), (2,))), cache.ends.get(((1,), (2,)))) == (0.5, 0.25)
    assert (len(cache.nll), len(cache.states), len(cache)) == (1, 0, 2)


def test_a_value_that_could_not_be_computed_is_computed_again() -> None:
    cache = loaded(tiny_llama()).cache
    with pytest.raises(ZeroDivisionError):
        cache.deviations.get_or_compute("a", lambda: 1 / 0)
    assert cache.deviations.get_or_compute("a", lambda: 2.0) == 2


def test_clear_forgets_values_and_engines() -> None:
    model = model_with("a", "b")
    with pooled_engine(Resumable, model):
        pass
    assert repr(model.cache) == f"ModelCache(2 deviations, 1 engines; 0.1 of {BUDGET >> 20} MiB)"
    assert len(model.cache) == 3 and model.cache.nbytes > 0
    model.cache.clear()
    assert (len(model.cache), model.cache.nbytes) == (0, 0)
    assert repr(model.cache) == f"ModelCache(empty; 0.0 of {BUDGET >> 20} MiB)"


def test_what_is_being_computed_while_the_cache_is_cleared_is_not_stored() -> None:
    """It may be of weights that are no more."""
    cache = loaded(tiny_llama()).cache

    def compute() -> float:
        cache.clear()
        return 1.0

    assert cache.deviations.get_or_compute("a", compute) == 1
    assert len(cache) == 0


# The size rule


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = loaded(tiny_llama()).cache
    cache.budget = 44 * KIB
    for layer in range(4):
        cache.states.get_or_compute((TEXT, layer), lambda: block(10))
    assert cache.states.get((TEXT, 0)) is not None
    cache.states.get_or_compute((TEXT, 4), lambda: block(10))
    assert cache.states.get_all((TEXT, layer) for layer in range(5)).keys() == {(TEXT, layer) for layer in (0, 2, 3, 4)}
    assert 40 * KIB < cache.nbytes <= 44 * KIB
    cache.budget = 15 * KIB
    assert len(cache) == 1
    with pytest.raises(ValueError, match="budget must be at least 0 bytes, got -1"):
        cache.budget = -1


def test_all_tables_and_the_engines_share_the_budget() -> None:
    model = model_with("old")
    with pooled_engine(Resumable, model) as engine:
        pass
    model.cache.states.get_or_compute((TEXT, 0), lambda: block(10))
    model.cache.budget = model.cache.nbytes
    model.cache.states.get_or_compute((TEXT, 1), lambda: block(1))
    assert (len(model.cache.deviations), len(model.cache.engines)) == (0, 0)  # the number was not enough
    with pooled_engine(Resumable, model) as new:
        assert new is not engine
    assert len(model.cache.states) == 1, "the larger one made room for the engine"


def test_what_is_larger_than_the_budget_is_not_stored_and_drives_nothing_out() -> None:
    model = model_with("a")
    model.cache.budget = 10 * KIB
    assert model.cache.states.get_or_compute((TEXT, 0), lambda: block(20)).numel() == 5 * KIB
    assert (len(model.cache.states), len(model.cache.deviations)) == (0, 1)


def test_bytes_are_those_of_the_tensors_and_objects() -> None:
    whole = torch.zeros(1000, 3)
    assert byte_size(whole) == 12_000
    assert byte_size(whole[:2]) == 12_000, "a part keeps all of it"
    assert 12_000 < byte_size([whole[:2], whole[5:]]) < 12_200, "counted once"
    assert 12_000 < byte_size({"a": whole}) < 12_400
    assert byte_size(tuple(range(1000))) == pytest.approx(1000 * 36, rel=0.2)
    assert byte_size("a" * 5000) == pytest.approx(5000, rel=0.1)


def test_an_engine_counts_with_what_it_does_not_share() -> None:
    model = loaded(tiny_llama())
    with pooled_engine(Resumable, model):
        pass
    modules = sum(1 for _ in model.hf.modules())
    assert 1000 * modules < model.cache.nbytes < 5000 * modules


# Weights


def test_a_model_forgets_when_its_weights_change() -> None:
    one, other = model_with("a"), model_with("a")
    with torch.no_grad():
        one.hf.get_output_embeddings().weight.neg_()
    assert one.cache.deviations.get("a") is None and other.cache.deviations.get("a") == 0
    one.cache.deviations.get_or_compute("a", lambda: 5.0)
    one.hf.get_output_embeddings().weight = torch.nn.Parameter(torch.ones_like(one.hf.get_output_embeddings().weight))
    assert one.cache.deviations.get("a") is None


def test_a_model_forgets_when_it_attends_otherwise() -> None:
    model = model_with("a")
    model.hf.set_attn_implementation("eager")
    assert model.cache.deviations.get("a") is None


def test_an_edited_model_forgets_when_its_base_changes() -> None:
    model = loaded(tiny_llama())
    with applied(model, edit_of(model, some_gates(model, (1, "post")))) as edited:
        edited.cache.deviations.get_or_compute("a", lambda: 1.0)
        assert edited.cache.deviations.get("a") == 1 and model.cache.deviations.get("a") is None
        with torch.no_grad():
            model.hf.get_input_embeddings().weight.neg_()
        assert edited.cache.deviations.get("a") is None


def test_a_model_remembers_while_a_copy_with_weights_of_its_own_is_trained() -> None:
    model = model_with("a")
    view = shared_view(model.hf)
    own = own_layer_weights(view, model.architecture, [0, 2])
    assert all(view.get_parameter(name) is parameter for name, parameter in own.items())
    with torch.no_grad():
        for parameter in own.values():
            parameter.neg_()
    assert model.cache.deviations.get("a") == 0


def test_strengths_share_engines_but_no_answers() -> None:
    """A model that a dial gave before is turned with it, so what is in its cache is no longer its own."""
    model = loaded(tiny_llama())
    dial = Dial(model, edit_of(model, some_gates(model, (1, "post"))))
    half = dial.at(0.5)
    answers = greedy_answers(half, TEXT)
    with pooled_engine(Resumable, half) as engine:
        pass
    assert len(half.cache.answers) == 1
    full = dial.at(1.0)
    assert len(full.cache.answers) == 0
    with pooled_engine(Resumable, full) as same:
        assert same is engine
    greedy_answers(full, TEXT)
    assert half.cache.answers.get(next(iter(full.cache.answers.get_all([(TEXT[0], 24, (4,))])))) is None
    assert greedy_answers(dial.at(0.5), TEXT) == answers


def test_an_answer_and_a_text_that_goes_on_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = loaded(tiny_llama()), list[bool]()

    def said(_: Any, prompts: Any, *, stop: bool, **__: Any) -> list[Completion]:
        asked.append(stop)
        return [Completion("ended" if stop else "goes on", (1,)) for _ in prompts]

    monkeypatch.setattr(generation, "generate", said)
    for _ in range(2):
        texts = [greedy_answers(model, TEXT, stop=stop)[0].text for stop in (True, False)]
        assert texts == ["ended", "goes on"]
    assert asked == [True, False]


def test_states_of_the_base_are_in_its_own_cache() -> None:
    model = loaded(tiny_llama())
    dial = Dial(model, edit_of(model, some_gates(model, (2, "post"))))
    for strength in (0.5, 1.0):
        continuation_probabilities(dial.at(strength), [(TEXT[0], (8, 9))])
    assert (len(model.cache.states), len(dial.at(0.5).cache.states)) == (1, 0)


# Life


def test_a_model_goes_with_its_last_name() -> None:
    """Without the garbage collector; what is in its cache goes too."""
    model = loaded(tiny_llama())
    value = model.cache.states.get_or_compute((TEXT, 0), lambda: block(1))
    with pooled_engine(Resumable, model) as engine:
        pass
    gone = [ref(model), ref(value), ref(engine), ref(model.hf)]
    gc.disable()
    try:
        del model, value, engine
        assert [one() for one in gone[:3]] == [None] * 3
    finally:
        gc.enable()
    gc.collect()
    assert gone[3]() is None


def test_a_cache_without_its_model_holds_nothing() -> None:
    cache: ModelCache = model_with("a").cache
    assert cache.deviations.get("a") is None
    assert cache.deviations.get_or_compute("a", lambda: 3.0) == 3


def test_copies_begin_with_an_empty_cache() -> None:
    model = model_with("a")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.fingerprint == model.fingerprint
        assert len(other.cache) == 0
        other.cache.deviations.get_or_compute("b", lambda: 1.0)
    assert model.cache.deviations.get_all("ab") == {"a": 0}


# Threads


def test_no_lock_is_held_while_a_value_is_computed() -> None:
    """Two threads compute the same thing at the same time, and get the same object."""
    cache, together = loaded(tiny_llama()).cache, threading.Barrier(2, timeout=20)

    def ask() -> torch.Tensor:
        def compute() -> torch.Tensor:
            together.wait()  # nobody gets past unless both compute
            return block(1)

        return cache.states.get_or_compute((TEXT, 0), compute)

    with ThreadPoolExecutor(2) as threads:
        one, other = [job.result(30) for job in [threads.submit(ask) for _ in range(2)]]
    assert one is other
    assert len(cache) == 1


def test_many_threads_and_a_small_budget() -> None:
    """Every value is that of its key, and the bytes add up."""
    cache = loaded(tiny_llama()).cache
    cache.budget = 20 * KIB

    def ask(layer: int) -> float:
        if layer == 13:
            cache.clear()
        return float(cache.states.get_or_compute((TEXT, layer), lambda: torch.full((KIB,), float(layer)))[-1])

    layers = [n % 17 for n in range(400)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, layers)) == layers
    assert cache.nbytes <= 20 * KIB and len(cache) <= 5
    cache.clear()
    assert cache.nbytes == 0


def test_threads_get_the_same_answers() -> None:
    model = loaded(tiny_llama())
    prompts = [(n, n + 1, n + 2) for n in range(5, 9)]
    alone = greedy_answers(loaded(tiny_llama()), prompts)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: greedy_answers(model, prompts), range(8))) == [alone] * 8
    assert len(model.cache.answers) == len(prompts)
