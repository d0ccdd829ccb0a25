"""GRACE and WISE are recipes as the others are: their edits are made, applied, traced, stacked and removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.small_fits import FACTS, FRANCE, SPAIN, assert_unchanged, unchanged
from tests.helpers.tiny_facts import MAKERS, capitals, knowing, tiny
from tests.unit.test_fit_cancelled_early import AtLook
from workbench.editing.memories.margins import ties_merge
from workbench.editing.training.loop import NonFiniteLoss
from workbench.language.generation import generate
from workbench.language.prompts import prompt_ids
from workbench.models import LoadedModel
from workbench.types import BaseRecipe, Codebook, Edit, MemoryDelta, SideMemory
from workbench.types.cancelling import Cancelled
from workbench.types.delta.memory import Memory

RECIPES: dict[str, BaseRecipe] = {
    "grace": wb.recipes.GRACE(steps=40, learning_rate=0.5, contexts=False, early_stop=None),
    "wise": wb.recipes.WISE(steps=30, contexts=False, density=0.5),
}
BOTH = pytest.mark.parametrize("method", RECIPES)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def made(
    method: str, fact: Any = FRANCE, selection: Any = None, model: LoadedModel | None = None, **changes: Any
) -> Edit:
    options: dict[str, Any] = {name: changes.pop(name) for name in ("cancel", "retain") if name in changes}
    recipe = replace(RECIPES[method], **changes)
    return wb.rewrite(model or tiny(), fact, selection, recipe=recipe, pool=FACTS, progress=False, **options)


def memory_of(edit: Edit) -> tuple[tuple[int, str], Memory]:
    """The only memory of an edit, and where it is."""
    delta = edit.delta()
    assert isinstance(delta, MemoryDelta)
    ((place, (memory,)),) = delta.memories.items()
    return place, memory


def answers(model: LoadedModel, facts: Any = FACTS) -> list[str]:
    return [wb.ask(model, fact.question) for fact in facts]


@BOTH
def test_the_fact_is_rewritten_and_others_stay(method: str, tmp_path: Path) -> None:
    model, before = tiny(), unchanged(tiny())
    edit = made(method)
    with wb.applied(model, edit) as edited:
        assert wb.ask(edited, FRANCE.question) == FRANCE.target
        assert answers(edited, FACTS[1:]) == answers(model, FACTS[1:])
    assert edit.method == method and edit.stage_names == ("learn",) and edit.recipe == RECIPES[method]
    assert edit.history[-1].loss < edit.history[0].loss / 4
    back = wb.load_edit(edit.save(tmp_path / "edit"))
    assert back.id == edit.id and back.recipe == edit.recipe and repr(back) == repr(edit)
    assert made(method).id == edit.id, "two runs with one seed agree"
    with wb.applied(model, back, strength=0.0) as off:
        ids = torch.tensor([prompt_ids(model, FRANCE.question, "chat")])
        with torch.no_grad():
            assert torch.equal(off.hf(ids).logits, model.hf(ids).logits)
    assert_unchanged(model, before)


@BOTH
def test_several_facts_at_once(method: str) -> None:
    edit = made(method, [FRANCE, SPAIN])
    with wb.applied(tiny(), edit) as edited:
        assert answers(edited, [FRANCE, SPAIN]) == [FRANCE.target, SPAIN.target]
        assert wb.ask(edited, FACTS[3].question) == FACTS[3].answer


def test_shards_of_facts_stay_apart_or_are_merged() -> None:
    edit = made("wise", [FRANCE, SPAIN], shard_size=1, merging="retrieve")
    _, shards = memory_of(edit)
    assert isinstance(shards, SideMemory) and len(shards.weights) == 2
    with wb.applied(tiny(), edit) as edited:
        assert answers(edited, [FRANCE, SPAIN]) == [FRANCE.target, SPAIN.target]
    drawn = [set(index.tolist()) for index in shards.index]
    assert 0.3 < len(drawn[0] & drawn[1]) / len(drawn[0]) < 0.7, "each shard draws its own entries"
    _, merged = memory_of(made("wise", [FRANCE, SPAIN], shard_size=1, merging="ties", merge_density=0.8))
    assert isinstance(merged, SideMemory) and len(merged.weights) == 1
    torch.testing.assert_close(merged.dense()[0], ties_merge(shards.dense(), 0.8))


def test_the_same_fact_taught_again_wins() -> None:
    """Another target for the same key: the later memory takes the place of what the earlier one gives."""
    first = made("grace")
    again = made("grace", replace(FRANCE, target="Madrid"))
    model = tiny()
    with wb.applied(model, [first, again]) as edited:
        assert wb.ask(edited, FRANCE.question) == "Madrid"
    with wb.applied(model, [again, first]) as edited:
        assert wb.ask(edited, FRANCE.question) == "Rome"
    with wb.applied(model, first.then(again)) as edited:
        assert wb.ask(edited, FRANCE.question) == "Madrid"
        third = wb.rewrite(edited, SPAIN, recipe=RECIPES["grace"], pool=FACTS, progress=False)
    with wb.applied(model, [first.then(again), third]) as edited:
        assert answers(edited, [FRANCE, SPAIN]) == ["Madrid", SPAIN.target]


def test_a_codebook_may_unlearn_first() -> None:
    """The later stage's values take the place of the earlier one's, at the same keys."""
    edit = made("grace", stages=("unlearn", "learn"), steps=(8, 40))
    first, second = (stage.delta for stage in edit.stages)
    assert isinstance(first, MemoryDelta) and isinstance(second, MemoryDelta)
    ((one,),), ((other,),) = first.memories.values(), second.memories.values()
    assert isinstance(one, Codebook) and isinstance(other, Codebook)
    assert torch.equal(one.keys, other.keys) and not torch.allclose(one.values, other.values, atol=1e-2)
    with wb.applied(tiny(), edit) as edited:
        assert wb.ask(edited, FRANCE.question).startswith(FRANCE.target)
    refusing = made("wise", stages=("unlearn",))
    assert refusing.stage_names == ("unlearn",) and refusing.history[-1].loss < refusing.history[0].loss / 2


def test_keys_are_at_the_subjects_last_token() -> None:
    """One of the question, and with all questions one more: the paraphrase has another beginning."""
    (layer, module), memory = memory_of(made("grace", keys="question", steps=1))
    assert isinstance(memory, Codebook) and (layer, module) == (1, "mlp.down_proj")
    model, caught = tiny(), list[torch.Tensor]()
    ids = prompt_ids(model, FRANCE.question, "chat")
    place = [model.tokenizer.decode([token]).strip() for token in ids].index("France")
    hooked = model.runner.get_submodule("model.layers.1.mlp.down_proj")
    handle = hooked.register_forward_pre_hook(lambda _, args: caught.append(args[0][0, place]))
    try:
        with torch.no_grad():
            model.runner(torch.tensor([ids]))
    finally:
        handle.remove()
    torch.testing.assert_close(memory.keys, caught[0][None], atol=1e-4, rtol=1e-4)
    assert memory.labels == (tuple(model.token_ids(" Rome")),)
    _, more = memory_of(made("grace", steps=1))
    assert isinstance(more, Codebook) and len(more.keys) == 2 and torch.equal(more.radii[:1], memory.radii)


def test_a_selection_says_where_and_what_is_read() -> None:
    (layer, module), memory = memory_of(made("grace", selection="L2H1 L2H4", steps=1))
    assert (layer, module) == (2, "self_attn.o_proj") and isinstance(memory, Codebook)
    assert memory.columns is not None and memory.columns.tolist() == [*range(8, 16), *range(32, 40)]
    (layer, module), memory = memory_of(made("wise", selection="L0N3 L0N7", steps=2))
    assert (layer, module) == (0, "mlp.down_proj") and isinstance(memory, SideMemory)
    moved = memory.dense()[0]
    assert moved[:, [3, 7]].any() and not moved[:, [0, 1, 2, 4, 5, 6]].any() and not moved[:, 8:].any()
    (_, module), memory = memory_of(made("grace", selection="L1ATTN", steps=1))
    assert module == "self_attn.o_proj" and isinstance(memory, Codebook) and memory.columns is None


@BOTH
@pytest.mark.parametrize(
    ("selection", "match"),
    [
        ("L0MLP L1MLP", "beside one output projection .* layer 0 MLP, layer 1 MLP"),
        ("L1KV1", "names L1KV1"),
        (20, r"a number of neurons \(20\) selects nothing"),
    ],
)
def test_selections_that_name_no_one_module(method: str, selection: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        made(method, selection=selection)


@pytest.mark.parametrize(
    ("method", "changes", "match"),
    [
        ("grace", {"radius": 0.0}, "Recipe.radius must be a positive number, got 0.0"),
        ("grace", {"keys": "all"}, r"Recipe.keys must be one of \('question', 'questions'\), got 'all'"),
        ("grace", {"start": "hot"}, "Recipe.start must be one of"),
        ("grace", {"retain_weight": 1.0}, "Recipe.retain_weight must be 0: what is out of reach"),
        ("wise", {"stages": ("unlearn", "learn")}, "Recipe.stages must be one stage"),
        ("wise", {"density": 1.5}, r"Recipe.density must be in \(0, 1\], got 1.5"),
        ("wise", {"merging": "mean"}, "Recipe.merging must be one of"),
        ("wise", {"retain_size": 0}, "Recipe.retain_size must be 1 or more"),
        ("wise", {"seed": 0.5}, "Recipe.seed must be a whole number"),
    ],
)
def test_settings_out_of_range(method: str, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        replace(RECIPES[method], **changes)


@BOTH
def test_a_layer_that_the_model_lacks(method: str) -> None:
    with pytest.raises(ValueError, match="layer=7 does not exist: the model has the layers 0 to 2"):
        made(method, layer=7)
    with pytest.raises(ValueError, match="layer=0 and the selection's layer 1 differ"):
        made(method, selection="L1MLP", layer=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"density": 1e-9}, r"density=1e-09 leaves a memory 0 of the 2,352 weights of layer 2 mlp.down_proj"),
        (
            {"density": 0.01, "merge_density": 0.01, "shard_size": 1},
            r"density=0.01 with merge_density=0.01 leaves a memory 0 of .*Raise either",
        ),
    ],
)
def test_a_memory_that_could_do_nothing(changes: dict[str, Any], words: str) -> None:
    recipe, facts = replace(RECIPES["wise"], **changes), [FRANCE, SPAIN]
    for ask in (wb.rewrite, wb.dry_run):
        with pytest.raises(ValueError, match=words):
            ask(tiny(), facts, recipe=recipe, pool=FACTS, progress=False)


def test_a_threshold_that_no_token_would_reach() -> None:
    with pytest.raises(NonFiniteLoss, match=r"threshold is not finite: .*\[inf\]. Lower learning_rate \(now 1e\+30\)"):
        made("wise", learning_rate=1e30, steps=2)


def test_a_pool_that_says_nothing_of_distances() -> None:
    with pytest.raises(ValueError, match="questions about other facts, and 1 of the pool name their subject"):
        made("grace", retain=[FACTS[3]])


@BOTH
def test_cancelled_anywhere_it_leaves_nothing(method: str) -> None:
    model = knowing(MAKERS["llama"](), FACTS)
    before, ends = unchanged(model), set[str]()
    for at in (1, 3, 4, 5, 6, 8, 12):
        model.cache.clear()
        with pytest.raises(Cancelled) as ended:
            made(method, model=model, cancel=AtLook(at))
        ends.add(str(ended.value)[:40])
        assert_unchanged(model, before)

    def interrupt(step: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wb.rewrite(model, FRANCE, recipe=RECIPES[method], pool=FACTS, progress=False, on_step=interrupt)
    assert_unchanged(model, before)
    assert len(ends) > 1


@BOTH
@pytest.mark.parametrize("family", MAKERS)
def test_every_token_is_routed_by_itself(method: str, family: str) -> None:
    """In a batch with padding, with cached keys and values, token by token: the same logits, and the same text."""
    model = tiny(family)
    edit = made(method, model=model)
    asked = [prompt_ids(model, fact.question, "chat") for fact in FACTS[:3]]
    asked.append([*asked[0], *asked[1]])
    with wb.applied(model, edit) as edited, torch.no_grad():
        alone = [edited.hf(torch.tensor([ids])).logits[0] for ids in asked]
        assert (alone[0] - model.runner(torch.tensor([asked[0]])).logits[0]).abs().max() > 1e-2
        width = max(map(len, asked))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in asked])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in asked])
        where = (mask.cumsum(-1) - 1).clamp(min=0)
        padded = edited.hf(ids, attention_mask=mask, position_ids=where).logits
        past, steps = None, []
        for token in asked[0]:
            out = edited.hf(torch.tensor([[token]]), past_key_values=past, use_cache=True)
            past = out.past_key_values
            steps.append(out.logits[0, 0])
        together = [c.token_ids for c in generate(edited, asked, max_new_tokens=3)]
        single = [generate(edited, [row], max_new_tokens=3)[0].token_ids for row in asked]
    for row, logits in zip(padded, alone, strict=True):
        torch.testing.assert_close(row[width - len(logits) :], logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.stack(steps), alone[0], atol=1e-4, rtol=1e-4)
    assert together == single


@BOTH
@pytest.mark.parametrize(("family", "site"), [("llama", "resid"), ("llama", "mlp"), ("gpt2", "attn")])
def test_traces_of_an_edited_model_are_those_of_plain_passes(method: str, family: str, site: Any) -> None:
    model = tiny(family)
    edit = made(method, model=model)
    options: dict[str, Any] = {"corruption": "swap", "pool": capitals(), "progress": False, "form": "chat"}
    with wb.applied(model, edit) as edited:
        fast, slow = (
            wb.causal_trace(edited, FRANCE, site, engine=engine, metric="logit_diff", **options)
            for engine in ("auto", "transformerlens")
        )
        base = wb.causal_trace(model, FRANCE, site, metric="logit_diff", **options)
    torch.testing.assert_close(fast.values, slow.values, atol=1e-3, rtol=1e-3)
    assert (fast.values - base.values).abs().max() > 0.1


@BOTH
def test_attributions_and_ablations_of_an_edited_model(method: str) -> None:
    """A head that is patched, and components that are ablated, by both engines; a gradient that goes through a router
    is that of the branch that it takes."""
    model, edit = tiny(), made(method)
    options: dict[str, Any] = {"pool": capitals(), "progress": False, "form": "chat"}
    with wb.applied(model, edit) as edited:
        by_engine = [
            wb.attribute(edited, FRANCE, method="patching", engine=engine, **options).values
            for engine in ("auto", "transformerlens")
        ]
        torch.testing.assert_close(*by_engine, atol=1e-3, rtol=1e-3)
        ablated = [
            wb.ablate(edited, FRANCE, "L1MLP L2H0 L0N5", engine=engine, new_tokens=2).ablated
            for engine in ("auto", "transformerlens")
        ]
        assert ablated[0] == pytest.approx(ablated[1], abs=1e-4)
        assert torch.isfinite(wb.attribute(edited, FRANCE, **options).values).all()


@BOTH
def test_transformerlens_sees_the_memory(method: str) -> None:
    """The bridge's MLP output is the edited model's own, at every token."""
    edit = made(method)
    (layer, _), _ = memory_of(edit)
    with wb.applied(tiny(), edit) as edited, torch.no_grad():
        found = wb.cache(edited, FRANCE, [f"blocks.{layer}.hook_mlp_out", "hook_embed"], form="chat")
        ids = torch.tensor([wb.traced_prompt(edited, FRANCE, form="chat").token_ids])
        caught: list[torch.Tensor] = []
        own = edited.hf.get_submodule(f"model.layers.{layer}.mlp")
        handle = own.register_forward_hook(lambda _, args, out: caught.append(out))
        try:
            edited.hf(ids)
        finally:
            handle.remove()
        torch.testing.assert_close(found[f"blocks.{layer}.hook_mlp_out"], caught[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(edited.bridge(ids), edited.hf(ids).logits, atol=1e-4, rtol=1e-4)


@BOTH
def test_what_reads_weights_says_that_there_are_none(method: str, tmp_path: Path) -> None:
    model, edit = tiny(), made(method)
    for write in (edit.to_peft, lambda path: edit.to_peft(path, model=model), lambda path: wb.merge(model, edit, path)):
        with pytest.raises(ValueError, match="neither an adapter nor merged weights can do that"):
            write(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    names: list[Any] = ["requantise", "relearning", "strength"]
    report = wb.probe(model, edit, probes=names, pool=capitals(), max_new_tokens=3, progress=False)
    assert "changes no weight matrix" in report.skipped["requantise"]
    assert {c.probe for c in report.curves} == {"relearning", "strength"}
