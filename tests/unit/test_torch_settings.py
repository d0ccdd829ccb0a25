"""Settings of torch that a notebook has left on change no number and break nothing, and are as they were afterwards."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.tiny import loaded, random_edit, tiny_gpt2, tiny_llama, tiny_tokenizer
from tests.helpers.tiny_facts import knowing
from tests.unit.test_models_unchanged import CALLS, FACTS, FRANCE, small_edit
from workbench.editing.applied import Dial
from workbench.models.load import LoadedModel, load_model
from workbench.types.torch_settings import own_torch_settings
from workbench.widgets.shared.job import Job


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def all_at_once(dtype: torch.dtype) -> Iterator[None]:
    with ExitStack() as stack:
        for setting in (default_dtype(dtype), default_device("meta"), deterministic()):
            stack.enter_context(setting)
        for setting in (torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode()):
            stack.enter_context(setting)
        yield


Setting = Callable[[], AbstractContextManager[object]]
ONE: dict[str, Setting] = {
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "default float64": lambda: default_dtype(torch.float64),
    "default device": lambda: default_device("meta"),
    "device as a context": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "deterministic": deterministic,
}
ALL: dict[str, Setting] = {
    "with bfloat16": lambda: all_at_once(torch.bfloat16),
    "with float64": lambda: all_at_once(torch.float64),
}
VOLATILE = {"provenance", "seconds", "created", "elapsed"}


def numbers(value: Any) -> Any:
    """All that a result says but for when it was made and how long that took."""
    if isinstance(value, wb.Edit):
        return value.id
    if isinstance(value, Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, Path):
        return sorted(path.name for path in value.rglob("*"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if f.name not in VOLATILE]
        return {name: numbers(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {str(key): numbers(entry) for key, entry in value.items() if key not in VOLATILE}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [numbers(entry) for entry in value]
    return repr(value)


def computed(call: Callable[[LoadedModel, Path], Any], path: Path, setting: Setting = nullcontext) -> str:
    """What a call gives for a model that knows five facts, in words."""
    path.mkdir()
    model = knowing(tiny_llama(tied=False), FACTS)
    with setting():
        out = call(model, path)
    return repr(numbers(out))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def settings_now() -> tuple[object, ...]:
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
    )


# Every public function


@pytest.mark.parametrize("name", [name for name in CALLS if name != "fingerprint and bridge"])
def test_all_settings_at_once_change_no_number(name: str, tmp_path: Path) -> None:
    plain = computed(CALLS[name], tmp_path / "plain")
    assert computed(CALLS[name], tmp_path / "set", ALL["with bfloat16"]) == plain


CORE: dict[str, Callable[[LoadedModel, Path], Any]] = {
    "trace": lambda m, _: wb.causal_trace(m, FRANCE, "mlp", samples=2, pool=FACTS, progress=False),
    "attribute": lambda m, _: wb.attribute(m, FRANCE, pool=FACTS, progress=False),
    "ablate": lambda m, _: wb.ablate(m, FRANCE, "L1H2 L0MLP", new_tokens=2, control=1),
    "rewrite": lambda m, _: small_edit(m),
    "lens": lambda m, _: wb.lens(m, FRANCE),
    "ask": lambda m, _: wb.ask(m, FRANCE.question),
}


@pytest.mark.parametrize("setting", ONE)
@pytest.mark.parametrize("name", CORE)
def test_each_setting_alone_changes_no_number(name: str, setting: str, tmp_path: Path) -> None:
    plain = computed(CORE[name], tmp_path / "plain")
    assert computed(CORE[name], tmp_path / "set", ONE[setting]) == plain


def test_every_public_function_that_computes_has_its_own_settings() -> None:
    """``applied`` is a context manager, within which the user's settings hold; what it makes has its own."""
    bare = {"applied", "classify", "load_facts", "load_sweep", "load_task"}
    functions = {name: getattr(wb, name) for name in wb.__all__ if inspect.isfunction(getattr(wb, name))}
    plain = {name for name, function in functions.items() if inspect.unwrap(function) is function}
    assert plain <= bare, "decorate them with own_torch_settings()"


# Loading, editing, saving


@pytest.mark.parametrize("setting", [*ONE, *ALL])
def test_a_model_is_loaded_saved_and_hashed_as_ever(setting: str, tmp_path: Path) -> None:
    plain = loaded(tiny_llama())
    with (ONE | ALL)[setting]():
        folder = wb.export_base(tmp_path / "base", plain)
        again = load_model(folder)
        assert again.fingerprint == plain.fingerprint
        assert again.dtype == torch.float32 and again.device.type == "cpu"
        assert not any(tensor.is_inference() for tensor in again.hf.parameters())
    assert wb.ask(again, "What is the capital?") == wb.ask(plain, "What is the capital?")


@pytest.mark.parametrize("setting", [*ONE, *ALL])
def test_edits_are_read_and_applied_as_ever(setting: str, tmp_path: Path) -> None:
    model = knowing(tiny_llama(tied=False), FACTS)
    random_edit(model).save(tmp_path / "edit")
    ids = torch.tensor([model.token_ids("The capital of France is")])

    def logits(strength: float) -> Tensor:
        with wb.applied(model, wb.load_edit(tmp_path / "edit"), strength=strength) as edited, torch.no_grad():
            return edited.runner(ids).logits

    plain = logits(0.5)
    with (ONE | ALL)[setting]():
        edit = wb.load_edit(tmp_path / "edit")
        dial = Dial(model, edit)
        turned = dial.at(0.5)
        half = edit.delta(None, 0.5)
        edit.to_peft(tmp_path / "adapter")
        assert turned.bridge is not None
    with torch.no_grad():
        assert torch.equal(turned.runner(ids).logits, plain)
    assert half.digest() == wb.load_edit(tmp_path / "edit").delta(None, 0.5).digest()
    wb.attribute(turned, FRANCE, pool=FACTS, progress=False)  # with gradients


@pytest.mark.parametrize("make", [lambda: tiny_llama(tied=False), lambda: tiny_gpt2(tie_word_embeddings=False)])
def test_a_model_that_was_made_in_inference_mode(make: Callable[[], Any]) -> None:
    plain = knowing(make(), FACTS)
    with torch.inference_mode():
        hf = copy.deepcopy(plain.hf)
    assert all(parameter.is_inference() for parameter in hf.parameters())
    model = load_model(hf, tokenizer=tiny_tokenizer(), name=plain.name)
    assert model.fingerprint == plain.fingerprint
    assert {p.data_ptr() for p in model.runner.parameters()} == {p.data_ptr() for p in hf.parameters()}
    for name in ("trace mlp, swap", "attribute heads", "ablate", "rewrite", "evaluate"):
        assert numbers(CALLS[name](model, Path())) == numbers(CALLS[name](plain, Path())), name
    for at in (model, plain):
        with wb.applied(at, random_edit(at, "L1N5 L2H1")) as edited:
            wb.attribute(edited, FRANCE, pool=FACTS, progress=False)


# What was set


@pytest.mark.parametrize("setting", [*ONE, *ALL])
def test_the_settings_are_as_they_were_also_after_an_error(setting: str) -> None:
    model = loaded(tiny_llama())
    outside = settings_now()
    with (ONE | ALL)[setting]():
        before = settings_now()
        wb.next_tokens(model, "The capital", form="cloze")
        assert settings_now() == before
        with pytest.raises(ValueError):
            wb.known_facts(model, FACTS, form="prose")  # pyright: ignore[reportArgumentType]
        assert settings_now() == before
    assert settings_now() == outside


def test_jobs_of_several_threads_end_in_any_order() -> None:
    """The default dtype is one for all threads: it is given back when the last of them has ended."""
    seen: list[torch.dtype] = []
    inside, leave = threading.Event(), threading.Event()

    def first(_: threading.Event) -> None:
        inside.set()
        leave.wait(10)

    def second(_: threading.Event) -> None:
        seen.append(torch.get_default_dtype())

    with default_dtype(torch.float64):
        job = Job(first)
        assert inside.wait(10)
        Job(second).wait(10)
        seen.append(torch.get_default_dtype())
        leave.set()
        job.wait(10)
        seen.append(torch.get_default_dtype())
    assert seen == [torch.float32, torch.float32, torch.float64]


def test_what_is_set_meanwhile_stays() -> None:
    with default_dtype(torch.float64):
        with own_torch_settings():
            torch.set_default_dtype(torch.bfloat16)
        assert torch.get_default_dtype() == torch.bfloat16
