"""Full fine-tuning and LoRA are recipes as IA3 is: their edits are saved, applied, probed and removed alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.small_fits import FACTS, assert_unchanged, unchanged
from tests.helpers.small_fits import recipe as quick
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, tiny
from tests.unit.test_arms import QUICK, RETAIN, SELECTION
from workbench.comparing.arms import shared_settings
from workbench.editing.methods.table import METHODS, RECIPES
from workbench.types import Deltas, DenseDelta, Edit, LowRankDelta

FRANCE = FACTS[0]
NAMES = {"full": wb.recipes.FullFineTuning, "lora": wb.recipes.LoRA}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def made(method: str, selection: Any = None, **changes: Any) -> Edit:
    """A small edit of a method that moves weights, with the rows and steps of ``QUICK``."""
    recipe = NAMES[method](**{**shared_settings(QUICK), **changes})
    return wb.rewrite(tiny(), FRANCE, selection, recipe=recipe, retain=RETAIN, progress=False)


@pytest.mark.parametrize("method", NAMES)
def test_it_has_the_rows_and_the_loss_of_the_ia3_edit(method: str) -> None:
    gates = wb.rewrite(tiny(), FRANCE, SELECTION, recipe=QUICK, retain=RETAIN, progress=False)
    edit = made(method, SELECTION)
    assert edit.history[0].loss == pytest.approx(gates.history[0].loss, abs=1e-5)
    assert [(s.stage, s.step) for s in edit.history] == [(s.stage, s.step) for s in gates.history]
    assert edit.history[2].loss < edit.history[0].loss
    assert edit.method == method and edit.retain_ids == gates.retain_ids


@pytest.mark.parametrize("method", NAMES)
def test_it_is_an_edit_like_any_other(method: str, tmp_path: Path) -> None:
    """Applied, saved and loaded, stacked, evaluated, probed, merged; and gone without a trace."""
    from transformers import AutoModelForCausalLM

    model, before = tiny(), unchanged(tiny())
    edit = made(method, stages=("learn",), steps=4)
    ids = torch.tensor([model.token_ids("The capital of France is")])
    with wb.applied(model, edit) as edited, torch.no_grad():
        whole = edited.hf(ids).logits
        assert edited.edited and edited.delta.kind == {"full": "dense", "lora": "low-rank"}[method]
    back = wb.load_edit(edit.save(tmp_path / "edit"))
    assert back.id == edit.id and back.recipe == edit.recipe and repr(back) == repr(edit)
    with wb.applied(model, back, strength=0.0) as off, torch.no_grad():
        assert torch.equal(off.hf(ids).logits, model.hf(ids).logits)
    report = wb.evaluate(model, edit=edit, pool=capitals(), progress=False)
    assert report.stages[-1] == edit.stage_names[-1] and len(report.rows)
    probes = wb.probe(
        model, edit, probes=["relearning", "requantise", "strength"], pool=capitals(), max_new_tokens=3, progress=False
    )
    assert {c.probe for c in probes.curves} >= {"relearning", "strength"} and "requantise" in probes.probes
    maps = wb.compare_maps(model, edit, site="head", form="cloze", pool=capitals(), progress=False)
    assert torch.isfinite(maps.difference.values).all() and maps.difference.values.abs().max() > 0
    wb.merge(model, edit, tmp_path / "merged")
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, whole, atol=1e-4, rtol=1e-4)
    assert_unchanged(model, before)


def test_a_lora_is_exported_for_plain_peft_without_its_model(tmp_path: Path) -> None:
    from peft import PeftModel

    from workbench.models.views import shared_view

    edit = made("lora", rank=2)
    ids = torch.tensor([tiny().token_ids("The capital of France is")])
    plain: Any = PeftModel.from_pretrained(shared_view(tiny().hf), str(edit.to_peft(tmp_path / "adapter"))).eval()
    with wb.applied(tiny(), edit) as edited, torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, edited.hf(ids).logits, atol=1e-4, rtol=1e-4)


def test_full_fine_tuning_moves_all_layers_and_nothing_else() -> None:
    model, edit = tiny(), made("full")
    base = model.hf.state_dict()
    with wb.applied(model, edit) as edited:
        now = edited.hf.state_dict()
        moved = {name for name in base if not torch.equal(base[name], now[name])}
        assert moved == {name for name in base if ".layers." in name}
        assert {n for n in base if base[n].data_ptr() != now[n].data_ptr()} == moved  # all else is shared
        # The first step of AdamW is its rate, and two stages of 2 and 5 steps can go no farther than 7.
        most = max(float((base[n] - now[n]).abs().max()) for n in moved)
    rate = wb.recipes.FullFineTuning().learning_rate
    assert rate < most <= 7 * rate * 1.5
    assert len(edit.selection) == 0 and edit.scope == "whole model" and edit.selector == "all"


def test_full_fine_tuning_of_a_selections_layers() -> None:
    delta = made("full", "L1H2 L2N3").delta()
    assert isinstance(delta, DenseDelta) or (
        isinstance(delta, Deltas) and all(isinstance(p, DenseDelta) for p in delta.parts)
    )
    names = {name for stage in made("full", "L1H2 L2N3").stages for name in stage.delta.tensors()}
    assert {name.split(".layers.")[1][0] for name in names} == {"1", "2"}


def test_a_lora_without_a_selection_is_on_every_linear_module_and_asks_nobody() -> None:
    """No selector, and with ``retain_weight=0`` no retained facts: a pool without any will do."""
    recipe = wb.recipes.LoRA(rank=1, steps=2, retain_weight=0, stages=("learn",), seed=3)
    edit = wb.rewrite(tiny(), FRANCE, recipe=recipe, pool=wb.FactSet([FRANCE]), progress=False)
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta) and delta.rank == 1 and edit.retain_ids == edit.used_ids == ()
    modules = tiny().architecture.family.modules
    assert set(delta.factors) == {(layer, name) for layer in range(tiny().shape.n_layers) for name in modules}
    assert edit.stage_names == ("learn",) and "rank 1 added to 21 modules" in repr(edit)
    again = wb.rewrite(tiny(), FRANCE, recipe=recipe, pool=wb.FactSet([FRANCE]), progress=False)
    assert again.id == edit.id


def test_a_lora_on_a_selection_moves_those_slices_only() -> None:
    """A head is eight inputs of the attention's output projection; a key-value group eight outputs of k and of v."""
    delta = made("lora", "L1H2 L2KV1 L0N5", stages=("learn",), steps=4).delta()
    assert isinstance(delta, LowRankDelta)
    assert set(delta.factors) == {
        (0, "mlp.down_proj"),
        (1, "self_attn.o_proj"),
        (2, "self_attn.k_proj"),
        (2, "self_attn.v_proj"),
    }
    for key, rows, columns in (
        ((1, "self_attn.o_proj"), None, range(16, 24)),
        ((0, "mlp.down_proj"), None, [5]),
        ((2, "self_attn.v_proj"), range(8, 16), None),
    ):
        u, v = delta.factors[key]
        update = u @ v
        keep = torch.zeros_like(update)
        keep[list(rows) if rows is not None else slice(None)] = 1
        if columns is not None:
            keep = torch.zeros_like(update)
            keep[:, list(columns)] = 1
        assert update.abs().max() > 0 and not (update * (1 - keep)).any()


LORAS = [
    ("L1N3", 56 + 42, {(1, "mlp.down_proj")}),  # 1 gate: the smallest there is
    ("L1MLP L1H2", 56 + 42, {(1, "mlp.down_proj")}),  # 64 gates are nearer to 98 than to 188
    ("L1N3 L2N3 L2N4 L1MLP", 56 + 42, {(1, "mlp.down_proj")}),  # the module with the most gates
    ("L0MLP L1MLP L2MLP", 2 * 98, {(0, "mlp.down_proj"), (1, "mlp.down_proj")}),  # 168 gates
]


@pytest.mark.parametrize(("selection", "trained", "modules"), LORAS)
def test_a_budget_gives_about_as_many_weights(selection: str, trained: int, modules: set[tuple[int, str]]) -> None:
    """On the tiny Llama rank 1 has inputs + outputs: 56 + 42 (down), 48 + 42 (o)."""
    budget = wb.Selection(selection).n_parameters(tiny())
    edit = made("lora", selection, restrict=False, budget=budget)
    first = edit.stages[0].delta
    assert isinstance(first, LowRankDelta) and set(first.factors) == modules
    assert sum(tensor.numel() for tensor in first.tensors().values()) == trained


@pytest.mark.parametrize("method", NAMES)
def test_two_stages_move_the_same_weights(method: str) -> None:
    """The second stage adds what the weights went on by: together they are where the fit ended."""
    edit = made(method, stages=("unlearn", "learn"), steps=(2, 3))
    ids = torch.tensor([tiny().token_ids("The capital of France is")])
    with wb.applied(tiny(), edit, "unlearn") as first, wb.applied(tiny(), edit) as both, torch.no_grad():
        assert (first.hf(ids).logits - both.hf(ids).logits).abs().max() > 1e-6
    alone = made(method, stages=("unlearn",), steps=2)
    assert alone.stages[0].delta.digest() == edit.stages[0].delta.digest()


def test_a_stopped_fit_is_the_fit_of_so_many_steps() -> None:
    seen: list[Edit] = []

    def stop(edit: Edit) -> bool:
        seen.append(edit)
        return len(seen) == 3

    settings = shared_settings(quick(stages=("learn",), steps=9))
    options: dict[str, Any] = {"retain": RETAIN, "progress": False}
    stopped = wb.rewrite(tiny(), FRANCE, recipe=wb.recipes.LoRA(**settings), stop=stop, **options)
    assert stopped.id == seen[-1].id
    assert stopped.id == wb.rewrite(tiny(), FRANCE, recipe=wb.recipes.LoRA(**{**settings, "steps": 3}), **options).id


@pytest.mark.parametrize(
    ("recipe", "selection", "error", "message"),
    [
        (wb.recipes.LoRA(), 20, ValueError, "a number of neurons .20. selects nothing"),
        (wb.recipes.FullFineTuning(), 20, ValueError, "a number of neurons .20. selects nothing"),
        ("lorra", None, ValueError, "Unknown recipe 'lorra'; .* Did you mean 'lora'?"),
        (3.5, None, TypeError, "recipe must be a recipe, the name of one, or None, got float"),
    ],
)
def test_what_is_refused(recipe: Any, selection: Any, error: type[Exception], message: str) -> None:
    before = unchanged(tiny())
    with pytest.raises(error, match=message):
        wb.rewrite(tiny(), FRANCE, selection, recipe=recipe, progress=False)
    assert_unchanged(tiny(), before)


@pytest.mark.parametrize("change", [{"rank": 0}, {"rank": 1.5}, {"budget": 0}, {"learning_rate": -1.0}, {"seed": 0.5}])
def test_settings_are_checked(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(ValueError, match=f"Recipe.{name} must be"):
        wb.recipes.LoRA(**change)


def test_each_method_has_its_row() -> None:
    assert {"ia3", "lora", "full", "keyed", "consolidate", "rome", "memit"} <= set(METHODS)
    assert METHODS["ia3"].recipe is wb.Recipe is wb.recipes.IA3
    for name, method in METHODS.items():
        assert method.recipe.method == name and getattr(wb.recipes, method.recipe.__name__) is method.recipe
    assert {type(recipe) for recipe in RECIPES.values()} <= {method.recipe for method in METHODS.values()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_steps_that_half_precision_rounds_away_are_refused(dtype: torch.dtype) -> None:
    model = wb.load_model(tiny_llama().to(dtype), tokenizer=tiny().tokenizer, name="half")
    with pytest.raises(ValueError, match=r"rounds away. Load the model with dtype=torch.float32, or use"):
        wb.rewrite(model, FRANCE, recipe="full", progress=False)


def test_the_panel_says_what_moves_and_refuses_a_control_of_everything() -> None:
    panel = wb.EditPanel(tiny(), FRANCE, recipe=wb.recipes.LoRA(**shared_settings(QUICK)), pool=capitals())
    assert "All linear modules of all layers" in [label for label, _ in panel.controls["Train"].options]
    assert "# None: all linear modules of all layers" in panel.code
    panel.recipe = QUICK
    assert "Default: gain over Fisher information" in [label for label, _ in panel.controls["Train"].options]
    panel.recipe = wb.recipes.LoRA(**shared_settings(QUICK))
    panel.random_control = True
    with pytest.raises(ValueError, match="A random control needs components"):
        panel.run().wait(60)
    assert panel.edit is None, "before the fit"
