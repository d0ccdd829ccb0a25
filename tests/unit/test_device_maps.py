"""Models that accelerate has spread over parts: its hooks run in every view, and all numbers are those without them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from accelerate.hooks import AlignDevicesHook

import workbench as wb
from tests.helpers.plain_hooks import Plain
from tests.helpers.tiny import loaded, random_edit, tiny_gpt2, tiny_llama, tiny_tokenizer
from tests.helpers.tiny_facts import capitals, knowing
from tests.unit.test_models_unchanged import Snapshot
from workbench.models.load import LoadedModel, load_model
from workbench.models.refusals import ModelRefused

POOL = capitals()
FRANCE, SPAIN = POOL["france-capital"], POOL["spain-capital"]
RECIPE = wb.Recipe(steps=2, early_stop=None, retain_size=2)
FAMILIES: dict[str, tuple[Callable[[], Any], str, str]] = {
    "llama": (lambda: tiny_llama(tied=False), "model.layers", "model"),
    "gpt2": (lambda: tiny_gpt2(tie_word_embeddings=False), "transformer.h", "transformer"),
}


def parts_of(hf: Any, layers: str, first: str, second: str) -> dict[str, Any]:
    """A map of two parts: the embeddings and the lowest layer, and all else."""
    trunk = layers.rpartition(".")[0]
    names = [name for name, _ in hf.named_children() if name != trunk]
    names += [f"{trunk}.{name}" for name, _ in hf.get_submodule(trunk).named_children() if f"{trunk}.{name}" != layers]
    names += [f"{layers}.{n}" for n in range(3)]
    low = ("embed_tokens", "wte", "wpe", "drop", "rotary_emb", f"{layers}.0")
    return {name: first if name.endswith(low) else second for name in names}


def spread(hf: Any, layers: str) -> Any:
    """The model with accelerate's hooks, which it leaves out where all parts are on one device."""
    return dispatch_model(hf, parts_of(hf, layers, "cpu", "cpu"), force_hooks=True)


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The modules whose hooks have run."""
    ran: list[Any] = []
    real = AlignDevicesHook.pre_forward

    def spy(hook: Any, module: Any, *args: Any, **options: Any) -> Any:
        ran.append(module)
        return real(hook, module, *args, **options)

    monkeypatch.setattr(AlignDevicesHook, "pre_forward", spy)
    return ran


def both(family: str) -> tuple[LoadedModel, LoadedModel]:
    """A model that knows five facts, plain and spread."""
    make, layers, _ = FAMILIES[family]
    plain = knowing(make(), POOL)
    return plain, load_model(spread(copy.deepcopy(plain.hf), layers), tokenizer=plain.tokenizer, name=plain.name)


CALLS: dict[str, Callable[[LoadedModel], Any]] = {
    "trace of the residual stream": lambda m: wb.causal_trace(m, FRANCE, samples=2, pool=POOL, progress=False).values,
    "trace of MLPs by a swap": lambda m: (
        wb.causal_trace(m, FRANCE, "mlp", corruption="swap", pool=POOL, progress=False).values
    ),
    "trace of attention": lambda m: wb.causal_trace(m, FRANCE, "attn", samples=2, pool=POOL, progress=False).values,
    "attribution": lambda m: wb.attribute(m, FRANCE, pool=POOL, progress=False).values,
    "patching": lambda m: wb.attribute(m, FRANCE, method="patching", pool=POOL, progress=False).values,
    "edges": lambda m: wb.edges(m, FRANCE, pool=POOL).values.nan_to_num(),
    "exact edges": lambda m: wb.edges(m, FRANCE, method="patching", pool=POOL).values.nan_to_num(),
    "a path": lambda m: torch.tensor(wb.path_patch(m, FRANCE, "L0MLP", "L1H2", pool=POOL).effects),
    "faithfulness": lambda m: torch.tensor(wb.faithfulness(m, FRANCE, "L0MLP -> L2MLP -> logits", pool=POOL).alone),
    "faithfulness of nodes": lambda m: torch.tensor(wb.faithfulness(m, FRANCE, "L0MLP L2H1", pool=POOL).alone),
    "direct effects": lambda m: wb.attribute(m, FRANCE, method="dla", pool=POOL, progress=False).values,
    "answer": lambda m: torch.tensor(list(wb.ask(m, FRANCE.question).encode())),
    "edit": lambda m: wb.rewrite(m, FRANCE, "L1N5 L2H1", recipe=RECIPE, pool=POOL, progress=False).delta().tensors(),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_numbers_are_those_of_one_part_and_the_hooks_run(family: str, hooked: list[Any]) -> None:
    plain, spread_out = both(family)
    own = set(map(id, spread_out.hf.modules()))
    before = Snapshot(spread_out.hf)
    assert spread_out.fingerprint == plain.fingerprint
    for name, call in CALLS.items():
        wanted = call(plain)
        assert not hooked, "the plain model has none"
        found = call(spread_out)
        layers = {type(module).__name__ for module in hooked}
        assert any(kind.endswith(("DecoderLayer", "Block")) for kind in layers), f"{name}: the layers' hooks run"
        assert not own & set(map(id, hooked)), f"{name}: those of the views, not of the loaded model"
        hooked.clear()
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0, msg=name)
    before.compare(Snapshot(spread_out.hf))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fast_path_equals_plain_passes(family: str, hooked: list[Any]) -> None:
    """Every head by itself: the model as it is, its clean values put in by a hook of torch."""
    _, model = both(family)
    plain = Plain(model, family)
    options: dict[str, Any] = {"corruption": "swap", "partner": SPAIN, "form": "cloze", "pool": POOL, "progress": False}
    found = wb.attribute(model, FRANCE, "head", method="patching", **options).values
    d_head = model.shape.d_head
    at_worst = plain.run(plain.corrupted, {})
    wanted = torch.tensor(
        [
            [
                float(plain.moved("z", layer, slice(n * d_head, (n + 1) * d_head), 1.0)) - at_worst
                for n in range(found.shape[1])
            ]
            for layer in range(3)
        ]
    )
    assert hooked
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert float(wanted.abs().max()) > 0.1


def test_edited_models_and_their_folders(hooked: list[Any], tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    plain, model = both("llama")
    ids = torch.tensor([plain.token_ids(FRANCE.prompt)])
    logits = []
    for m in (plain, model):
        with wb.applied(m, random_edit(m)) as edited, torch.no_grad():
            logits += [edited.runner(ids).logits, edited.bridge(ids)]
    assert hooked
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], atol=1e-4, rtol=0)
    merged = [load_model(wb.merge(m, random_edit(m), tmp_path / str(i))) for i, m in enumerate((plain, model))]
    assert merged[0].fingerprint == merged[1].fingerprint
    assert not [str(w.message) for w in recwarn if "offloaded" in str(w.message)]


def test_tied_weights_stay_one(hooked: list[Any]) -> None:
    hf = spread(tiny_llama(), "model.layers")
    model = load_model(hf, tokenizer=tiny_tokenizer())
    assert {p.data_ptr() for p in model.runner.parameters()} == {p.data_ptr() for p in hf.parameters()}
    assert model.fingerprint == loaded(tiny_llama()).fingerprint
    ids = torch.tensor([model.token_ids("The capital")])
    with torch.no_grad():
        assert torch.equal(model.runner(ids).logits, tiny_llama()(ids).logits)
    assert {p.data_ptr() for p in model.runner.parameters()} == {p.data_ptr() for p in hf.parameters()}


def test_moving_a_view_does_not_move_the_model() -> None:
    """accelerate puts a ``to`` of its own on a model, which a copy would call on the model."""
    hf = spread(tiny_llama(), "model.layers")
    assert "to" in vars(hf)
    view = load_model(hf, tokenizer=tiny_tokenizer()).runner
    view.to(torch.float64)
    assert next(view.parameters()).dtype == torch.float64
    assert next(hf.parameters()).dtype == torch.float32


# Loading with a map


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path / "saved")
    tiny_tokenizer().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    "device_map", ["auto", "sequential", "cpu", {"": "cpu"}, parts_of(tiny_llama(), "model.layers", "cpu", "cpu")]
)
def test_loading_with_a_map(device_map: Any, folder: Path) -> None:
    model = load_model(folder, device_map=device_map, dtype="auto")
    assert model.fingerprint == loaded(tiny_llama()).fingerprint
    assert wb.ask(model, "What?") == wb.ask(load_model(folder), "What?")


def test_device_and_map_are_not_both_given(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"device \(cpu\) and device_map \('auto'\) both say where"):
        load_model(folder, device="cpu", device_map="auto")
    with pytest.raises(ValueError, match="stays as it is"):
        load_model(tiny_llama(), tokenizer=tiny_tokenizer(), device_map="auto")


@pytest.mark.parametrize("device_map", ["everywhere", {"": "gpu-7"}, 3.5])
def test_maps_that_are_none(device_map: Any, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"Cannot load .*saved' as a folder"):
        load_model(folder, device_map=device_map)


# Weights that are not in memory


def test_a_map_that_leaves_weights_on_the_disk(folder: Path) -> None:
    parts = parts_of(tiny_llama(), "model.layers", "cpu", "disk")
    with pytest.raises(ValueError, match=r"weights of the model are not in memory|Cannot load"):
        load_model(folder, device_map=parts)


@pytest.mark.parametrize("offload", ["cpu", "disk"])
def test_offloaded_models(offload: str, tmp_path: Path) -> None:
    hf = tiny_llama(tied=False)
    if offload == "cpu":
        cpu_offload(hf, execution_device=torch.device("cpu"))
    else:
        disk_offload(hf, str(tmp_path / "offload"), execution_device=torch.device("cpu"))
    with pytest.raises(ModelRefused, match=r"\d+ weights of the model are not in memory \(on the device meta: model\."):
        load_model(hf, tokenizer=tiny_tokenizer())


def test_a_model_that_was_made_without_weights() -> None:
    with torch.device("meta"):
        hf = type(tiny_llama())(tiny_llama().config)
    with pytest.raises(ModelRefused, match="are not in memory"):
        load_model(hf, tokenizer=tiny_tokenizer())


def test_a_model_that_moves_between_devices_as_a_whole() -> None:
    from accelerate import cpu_offload_with_hook

    hf, _ = cpu_offload_with_hook(tiny_llama(), execution_device="cpu")
    with pytest.raises(ModelRefused, match=r"accelerate's CpuOffload \(at its top\) moves the model's weights"):
        load_model(hf, tokenizer=tiny_tokenizer())
