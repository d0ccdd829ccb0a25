"""Every kind of delta keeps the same promises, on every shape of model: one suite over all of them.

The models are tiny and random; their gates, factors and tensors too, zero and negative ones among them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.small_fits import assert_unchanged, unchanged
from tests.helpers.tiny import loaded, random_edit, tiny_gpt2, tiny_llama, tiny_phi3
from workbench.models import LoadedModel
from workbench.models.deltas import fold
from workbench.models.views import shared_view
from workbench.tracing.dla import direct_effects, head_outputs
from workbench.types import (
    NO_DELTA,
    Delta,
    Deltas,
    DenseDelta,
    Edit,
    EditStage,
    GateDelta,
    LowRankDelta,
    TracedPrompt,
    delta_from,
)

IDS = torch.tensor([[5, 90, 17, 201, 33, 8]])
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}

MODELS: dict[str, Callable[[], Any]] = {
    "llama, tied": lambda: tiny_llama(bias=True),
    "llama, untied": lambda: tiny_llama(tied=False, seed=1),
    "gpt2, tied": tiny_gpt2,
    "gpt2, untied": lambda: tiny_gpt2(tie_word_embeddings=False, seed=1),
    "phi3": tiny_phi3,
}


@cache
def model_of(name: str) -> LoadedModel:
    """A tiny model; nothing in here may change it."""
    return loaded(MODELS[name]())


def draw(*shape: int, seed: int, scale: float = 0.3) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gates(model: LoadedModel, seed: int) -> GateDelta:
    """Gates on heads and neurons, a zero and a negative one among them; no biased output, so that a LoRA can say it."""
    found: dict[Any, Tensor] = {}
    for place in ((0, "post"), (1, "z"), (2, "post")):
        gate = 1 + draw(model.shape.site_size(place[1]), seed=seed + place[0])  # type: ignore[arg-type]
        gate[0], gate[1], gate[2] = 0.0, -0.5, 1.0
        found[place] = gate
    return GateDelta(found)


def low_rank(model: LoadedModel, seed: int) -> LowRankDelta:
    """Updates of ranks 2 and 1 on the projections that the gates are on, and on one that they are not on."""
    factors: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
    names = list(model.architecture.family.modules)
    for layer, module, rank in ((0, names[-1], 2), (1, names[0], 1), (2, names[-1], 1)):
        weight = model.hf.get_submodule(model.architecture.module_name(layer, module)).weight
        d_out, d_in = weight.shape[::-1] if model.architecture.family.fan_in_fan_out else weight.shape
        factors[layer, module] = draw(d_out, rank, seed=seed), draw(rank, d_in, seed=seed + 1)
    return LowRankDelta(factors)


def dense(model: LoadedModel, seed: int) -> DenseDelta:
    """Every tensor of the last layer, and the embeddings (which may be tied)."""
    own = {
        name: p + draw(*p.shape, seed=seed, scale=0.05)
        for name, p in model.hf.named_parameters()
        if f".{model.shape.n_layers - 1}." in name or p is model.hf.get_input_embeddings().weight
    }
    return DenseDelta(own)


KINDS: dict[str, Callable[[LoadedModel, int], Delta]] = {
    "gates": gates,
    "low-rank": low_rank,
    "dense": dense,
    "gates, then low-rank": lambda m, s: gates(m, s).then(low_rank(m, s + 50)),
    "low-rank, then gates": lambda m, s: low_rank(m, s).then(gates(m, s + 50)),
    "dense, then gates": lambda m, s: dense(m, s).then(gates(m, s + 50)),
    "gates, then dense": lambda m, s: gates(m, s).then(dense(m, s + 50)),
    "dense, then dense": lambda m, s: dense(m, s).then(dense(m, s + 50)),
}


@dataclass(frozen=True)
class Case:
    model: LoadedModel
    delta: Delta
    make: Callable[[LoadedModel, int], Delta]


@pytest.fixture(params=[(m, k) for m in MODELS for k in KINDS], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request: pytest.FixtureRequest) -> Case:
    name, kind = request.param
    model = model_of(name)
    return Case(model, KINDS[kind](model, 0), KINDS[kind])


def edit_with(model: LoadedModel, *deltas: Delta) -> Edit:
    """An edit that has these deltas, one a stage."""
    plain = random_edit(model, "L0MLP")
    names = ("unlearn", "learn", "more")
    stages = tuple(EditStage(name, delta) for name, delta in zip(names, deltas, strict=False))
    sites = [(layer, site) for layer in range(model.shape.n_layers) for site in ("z", "post")]
    return replace(plain, stages=stages, modules=model.architecture.describe(sites))  # type: ignore[arg-type]


def logits_of(model: LoadedModel, *edits: Edit, strength: float = 1.0) -> Tensor:
    """Logits of a model with edits, the last at a strength."""
    with torch.no_grad():
        if not edits:
            return model.runner(IDS).logits
        with wb.applied(model, edits[0], strength=strength if len(edits) == 1 else 1.0) as once:
            if len(edits) == 1:
                return once.hf(IDS).logits
            with wb.applied(once, edits[1], strength=strength, stack=True) as twice:
                return twice.hf(IDS).logits


def folded_logits(model: LoadedModel, delta: Delta) -> Tensor:
    view = shared_view(model.hf)
    fold(view, model.architecture, delta)
    with torch.no_grad():
        return view(IDS).logits


def test_strength_0_is_the_base_and_strength_1_the_delta(case: Case) -> None:
    edit = edit_with(case.model, case.delta)
    base, whole = logits_of(case.model), logits_of(case.model, edit)
    assert torch.equal(logits_of(case.model, edit, strength=0.0), base)
    assert not torch.allclose(whole, base, atol=1e-3)
    again = case.delta.scaled(1.0)
    assert again.digest() == case.delta.digest()
    assert torch.equal(logits_of(case.model, edit_with(case.model, again)), whole)
    half = logits_of(case.model, edit, strength=0.5)
    assert not torch.allclose(half, base, atol=1e-3) and not torch.allclose(half, whole, atol=1e-3)


def test_a_turned_strength_is_a_fresh_one(case: Case) -> None:
    from workbench.editing.applied import Dial

    edit = edit_with(case.model, case.delta)
    dial = Dial(case.model, edit)
    for strength in (1.0, 0.25, 0.0, 1.0):
        with torch.no_grad():
            assert torch.equal(dial.at(strength).hf(IDS).logits, logits_of(case.model, edit, strength=strength))


def test_then_is_what_one_after_the_other_does(case: Case) -> None:
    model, first, second = case.model, case.delta, case.make(case.model, 7)
    both = logits_of(model, edit_with(model, first, second))
    stacked = logits_of(model, edit_with(model, first), edit_with(model, second))
    torch.testing.assert_close(both, stacked, **TOLERANCE)
    torch.testing.assert_close(both, folded_logits(model, first.then(second)), **TOLERANCE)


def test_then_is_associative(case: Case) -> None:
    model = case.model
    a, b, c = case.delta, gates(model, 3), case.make(model, 9)
    left, right = a.then(b).then(c), a.then(b.then(c))
    assert [p.kind for p in getattr(left, "parts", (left,))] == [p.kind for p in getattr(right, "parts", (right,))]
    torch.testing.assert_close(
        logits_of(model, edit_with(model, left)), logits_of(model, edit_with(model, right)), **TOLERANCE
    )
    assert NO_DELTA.then(a) is a and a.then(NO_DELTA) is a


def test_the_merged_model_is_the_edited_one(case: Case, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    edit = edit_with(case.model, case.delta)
    wb.merge(case.model, edit, tmp_path / "merged")
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        torch.testing.assert_close(merged(IDS).logits, logits_of(case.model, edit), **TOLERANCE)


def test_the_adapter_in_plain_peft_is_the_edited_model(case: Case, tmp_path: Path) -> None:
    from peft import PeftModel

    edit = edit_with(case.model, case.delta)
    kinds = {part.kind for part in getattr(case.delta, "parts", (case.delta,))}
    if "dense" in kinds:
        with pytest.raises(ValueError, match=r"whole tensor.*wb.merge\(model, edit, folder\)"):
            edit.to_peft(tmp_path / "adapter", model=case.model)
        assert not (tmp_path / "adapter").exists()
        return
    if len(kinds) > 1:
        with pytest.raises(ValueError, match=r"needs the base's weights.*edit.to_peft\(folder, model=model\)"):
            edit.to_peft(tmp_path / "adapter")
    folder = edit.to_peft(tmp_path / "adapter", model=case.model if len(kinds) > 1 else None)
    kind = json.loads((folder / "adapter_config.json").read_text())["peft_type"]
    assert kind == ("IA3" if kinds == {"gates"} else "LORA")
    plain: Any = PeftModel.from_pretrained(shared_view(case.model.hf), str(folder)).eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(IDS).logits, logits_of(case.model, edit), **TOLERANCE)


def test_removal_leaves_the_base_as_it_was(case: Case) -> None:
    before, fingerprint = unchanged(case.model), case.model.fingerprint
    edit = edit_with(case.model, case.delta)
    base = logits_of(case.model)
    logits_of(case.model, edit)
    _ = logits_of(case.model, edit, edit_with(case.model, case.make(case.model, 5)))
    assert torch.equal(logits_of(case.model), base)
    assert case.model.fingerprint == fingerprint
    assert_unchanged(case.model, before)


def test_the_digest_sees_every_number(case: Case) -> None:
    digests = {case.delta.digest(), edit_with(case.model, case.delta).id}
    for name, tensor in case.delta.tensors().items():
        changed = tensor.clone()
        changed.view(-1)[-1] += 1
        other = delta_from(case.delta.header(), {**case.delta.tensors(), name: changed})
        digests |= {other.digest(), edit_with(case.model, other).id}
    assert len(digests) == 2 * (1 + len(case.delta.tensors()))


def test_saved_and_loaded_it_is_the_same(case: Case, tmp_path: Path) -> None:
    edit = edit_with(case.model, case.delta, case.make(case.model, 4))
    back = wb.load_edit(edit.save(tmp_path / "edit"))
    assert back.id == edit.id and [s.delta.digest() for s in back.stages] == [s.delta.digest() for s in edit.stages]
    assert torch.equal(logits_of(case.model, back), logits_of(case.model, edit))
    assert back.delta().words() == edit.delta().words() and back.delta().lowest_layer == edit.delta().lowest_layer


def test_the_bridge_of_an_edited_model_agrees(case: Case) -> None:
    edit = edit_with(case.model, case.delta)
    with wb.applied(case.model, edit) as edited, torch.no_grad():
        torch.testing.assert_close(edited.bridge(IDS), edited.hf(IDS).logits, **TOLERANCE)


def test_direct_effects_are_those_of_the_edited_weights(case: Case) -> None:
    """Heads add up to the attention's output, and neurons (with the output bias) to the MLP's, on the edited model."""
    edit = edit_with(case.model, case.delta)
    prompt = a_prompt()
    with wb.applied(case.model, edit) as edited:
        for layer in range(edited.shape.n_layers):
            heads, whole = head_outputs(edited, prompt, layer)
            bias = edited.bridge.blocks[layer].attn.b_O
            total = heads.sum(1) + (0 if bias is None else bias.detach())
            torch.testing.assert_close(total, whole, atol=1e-4, rtol=1e-3)
        mlps, _ = direct_effects(edited, prompt, "mlp")
        neurons, _ = direct_effects(edited, prompt, "neuron")
        if not any("bias" in n and "mlp" in n for n, _ in case.model.hf.named_parameters()):
            torch.testing.assert_close(neurons.sum(1), mlps, atol=1e-3, rtol=1e-3)


def a_prompt() -> TracedPrompt:
    ids = IDS[0].tolist()
    return TracedPrompt(
        fact_id="any",
        form="cloze",
        text="a prompt",
        prefix="",
        token_ids=tuple(ids),
        tokens=tuple(str(i) for i in ids),
        subject=(1, 2),
        answer_id=40,
        answer_token="x",
        other_token="y",
        other_id=41,
    )


def test_a_partial_pass_sees_the_edit(case: Case) -> None:
    """Scoring starts at the lowest changed layer, from the base's states."""
    from workbench.language.scoring import continuation_probabilities

    edit = edit_with(case.model, case.delta)
    row = (IDS[0, :4].tolist(), IDS[0, 4:].tolist())
    with wb.applied(case.model, edit) as edited, torch.no_grad():
        (found,) = continuation_probabilities(edited, [row])
        logprobs = edited.hf(IDS).logits[0].log_softmax(-1)
    expected = float((logprobs[3, row[1][0]] + logprobs[4, row[1][1]]).exp())
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["gates", "low-rank", "dense"])
def test_a_delta_for_another_model_is_refused(kind: str) -> None:
    model, other = model_of("llama, tied"), loaded(tiny_phi3(intermediate_size=64, hidden_size=60))
    delta = KINDS[kind](other, 0)
    before = unchanged(model)
    with (
        pytest.raises(ValueError, match=r"for another|has no linear module|does not have it"),
        wb.applied(model, edit_with(model, delta)),
    ):
        pass
    assert_unchanged(model, before)
    with pytest.raises(ValueError, match=r"cannot be put together: at .* different models"):
        delta.then(KINDS[kind](model_of("phi3"), 0))


def test_a_gate_on_a_biased_output_is_no_lora(tmp_path: Path) -> None:
    model = model_of("llama, tied")  # with biases on q, k, v and o
    gate = 1 + draw(model.shape.site_size("v"), seed=2)
    edit = edit_with(model, GateDelta({(1, "v"): gate}), low_rank(model, 3))
    with pytest.raises(ValueError, match=r"self_attn.v_proj scale its bias too.*wb.merge"):
        edit.to_peft(tmp_path / "x", model=model)
    free = model_of("llama, untied")
    edit = edit_with(free, GateDelta({(1, "v"): gate}), low_rank(free, 3))
    from peft import PeftModel

    plain: Any = PeftModel.from_pretrained(shared_view(free.hf), str(edit.to_peft(tmp_path / "y", model=free))).eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(IDS).logits, logits_of(free, edit), **TOLERANCE)


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_is_a_finite_number(case: Case, strength: float) -> None:
    with pytest.raises(ValueError, match="strength must be a finite number"):
        case.delta.scaled(strength)


def test_a_low_rank_delta_is_restricted_to_columns() -> None:
    delta = low_rank(model_of("phi3"), 0)
    key = min(delta.factors)
    part = delta.restricted({key: [0, 3]})
    (u, v), (_, whole) = part.factors[key], delta.factors[key]
    assert list(part.factors) == [key] and torch.equal(u, delta.factors[key][0])
    assert torch.equal(v[:, [0, 3]], whole[:, [0, 3]]) and not v[:, [1, 2]].any() and not v[:, 4:].any()


def test_what_a_low_rank_delta_refuses() -> None:
    with pytest.raises(ValueError, match=r"U \[d_out, r\] and V \[r, d_in\]"):
        LowRankDelta({(0, "mlp.down_proj"): (torch.ones(3, 2), torch.ones(1, 4))})
    with pytest.raises(ValueError, match="names no layer"):
        LowRankDelta({"lm_head": (torch.ones(3, 1), torch.ones(1, 4))})  # type: ignore[dict-item]
    named = LowRankDelta({"model.layers.2.mlp.down_proj": (torch.ones(3, 1), torch.ones(1, 4))})  # type: ignore[dict-item]
    assert list(named.factors) == [(2, "mlp.down_proj")]


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"one of .*'low-rank'.* and this one is 'sparse'"):
        delta_from({"kind": "sparse"}, {})
    assert isinstance(gates(model_of("phi3"), 0).then(low_rank(model_of("phi3"), 0)), Deltas)


def test_an_edit_after_an_edit_is_one_edit(case: Case, tmp_path: Path) -> None:
    """Stacked, joined with ``then``, given as a list, saved and loaded: all the same model."""
    first, second = (
        edit_with(case.model, case.delta, gates(case.model, 2)),
        edit_with(case.model, case.make(case.model, 6)),
    )
    both = first.then(second)
    assert both.stage_names == ("unlearn", "learn", "unlearn 2") and both.modules is not None
    stacked = logits_of(case.model, first, second)
    torch.testing.assert_close(logits_of(case.model, both), stacked, **TOLERANCE)
    with wb.applied(case.model, [first, second]) as edited, torch.no_grad():
        assert torch.equal(edited.hf(IDS).logits, stacked)
        assert [a.edit for a in edited.applied] == [first, second]
    assert wb.load_edit(both.save(tmp_path / "both")).id == both.id


def test_edits_of_two_bases_do_not_follow_each_other() -> None:
    model, other = model_of("llama, tied"), model_of("llama, untied")
    with pytest.raises(ValueError, match="Only edits of one base follow each other"):
        edit_with(model, gates(model, 0)).then(edit_with(other, gates(other, 0)))
    with pytest.raises(ValueError, match="at least one edit"), wb.applied(model, []):
        pass


@pytest.mark.parametrize("litter", [".ipynb_checkpoints", ".DS_Store"])
def test_what_jupyterlab_and_the_finder_leave_is_no_obstacle(litter: str, tmp_path: Path) -> None:
    model = model_of("llama, tied")
    edit = edit_with(model, gates(model, 0))
    for write in (edit.save, edit.to_peft, lambda path: wb.merge(model, edit, path)):
        folder = Path(write(tmp_path / "saved"))
        if litter.startswith(".ipynb"):
            (folder / litter).mkdir()
            (folder / litter / "edit-checkpoint.json").write_text("{}")
        else:
            (folder / litter).write_bytes(b"\0")
        assert Path(write(folder)) == folder
        (folder / "mine.txt").write_text("somebody's own")
        with pytest.raises(FileExistsError, match="holds something else"):
            write(folder)
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def test_a_site_whose_gates_have_not_moved_is_no_obstacle_to_peft(tmp_path: Path) -> None:
    """PEFT knows no LoRA of rank 0."""
    from peft import PeftModel

    model = model_of("gpt2, tied")
    still = GateDelta({(2, "z"): torch.ones(model.shape.site_size("z")), (1, "z"): gates(model, 0).gates[1, "z"]})
    edit = replace(edit_with(model, still, low_rank(model, 1)), modules=None)  # the model at hand names the modules
    plain: Any = PeftModel.from_pretrained(shared_view(model.hf), str(edit.to_peft(tmp_path / "x", model=model))).eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(IDS).logits, logits_of(model, edit), **TOLERANCE)
    nothing = edit_with(model, LowRankDelta({(0, "mlp.c_proj"): (torch.ones(40, 0), torch.ones(0, 56))}))
    with pytest.raises(ValueError, match="changes nothing"):
        nothing.to_peft(tmp_path / "y")


def test_one_delta_twice_is_saved_twice(tmp_path: Path) -> None:
    model = model_of("llama, tied")
    edit = edit_with(model, low_rank(model, 0).then(gates(model, 1)))
    twice = edit.then(edit)
    assert wb.load_edit(twice.save(tmp_path / "twice")).id == twice.id


def test_names_of_stages_that_a_file_cannot_tell_apart(tmp_path: Path) -> None:
    model = model_of("llama, tied")
    edit = edit_with(model, gates(model, 0))
    stages = (EditStage("a", DenseDelta({"b.c": torch.ones(2)})), EditStage("a.b", DenseDelta({"c": torch.ones(3)})))
    edit.save(tmp_path / "e")
    with pytest.raises(ValueError, match="could not tell them apart"):
        replace(edit, stages=stages).save(tmp_path / "e")
    assert wb.load_edit(tmp_path / "e").id == edit.id, "what was there is as it was"
