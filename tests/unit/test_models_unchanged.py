"""No public call changes the user's model, nor its tokenizer."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import workbench as wb
from tests.helpers.tiny import loaded, tiny_llama
from tests.helpers.tiny_facts import capitals, knowing, tokenizer_from_files
from workbench.models.load import LoadedModel, load_model

FACTS = capitals()
FRANCE = FACTS["france-capital"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


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
