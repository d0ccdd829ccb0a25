"""UltraEdit: the update against a direct solve, gradients against plain backward passes, and what moves."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.small_fits import assert_unchanged, unchanged
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, knowing, tiny
from workbench.editing.methods.ultraedit import Tokens, update
from workbench.editing.training.fit_rows import wanted_rows
from workbench.types import Edit, LowRankDelta, TrainedRecipe
from workbench.types.cancelling import Cancelled

FACTS = capitals()
FRANCE = FACTS[0]
N, D_IN, D_OUT = 4, 7, 3


def made(selection: Any = None, **settings: Any) -> Edit:
    recipe = wb.recipes.UltraEdit(**{"contexts": False, **settings})
    return wb.rewrite(tiny(), FRANCE, selection, recipe=recipe, progress=False)


def factors_of(edit: Edit) -> dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor]]:
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta)
    return dict(delta.factors)


def some_tokens() -> Tokens:
    generator = torch.Generator().manual_seed(0)
    return Tokens(*(torch.randn(N, d, generator=generator, dtype=torch.float64) for d in (D_IN, D_OUT, D_OUT)))


def test_the_update_is_the_published_solve() -> None:
    """X = (H^T H + I)^-1 H^T V [d_in, d_out], by a solve as wide as the module."""
    tokens = some_tokens()
    keys, gradients, _ = tokens
    unit = [(x - x.mean(0)) / x.std(0) for x in (keys, gradients)]
    values = -1e-2 * (unit[0] ** 2).sum(1, keepdim=True) * unit[1]
    wanted = torch.linalg.solve(keys.T @ keys + 2.0 * torch.eye(D_IN, dtype=torch.float64), keys.T @ values)
    u, v = update(tokens, rate=1.0, learning_rate=1e-2, ridge=2.0, columns=range(D_IN), normalise=True)
    assert u.shape == (D_OUT, N) and v.shape == (N, D_IN)
    torch.testing.assert_close(u @ v, wanted.T, atol=1e-12, rtol=1e-9)
    part = [1, 4, 5]
    wanted = torch.linalg.solve(
        keys[:, part].T @ keys[:, part] + torch.eye(3, dtype=torch.float64), keys[:, part].T @ values
    )
    u, v = update(tokens, rate=1.0, learning_rate=1e-2, ridge=1.0, columns=part, normalise=True)
    torch.testing.assert_close((u @ v)[:, part], wanted.T, atol=1e-12, rtol=1e-9)
    assert not bool(v[:, [0, 2, 3, 6]].any())


def test_the_rate_is_a_share_of_the_outputs() -> None:
    tokens = some_tokens()
    options: dict[str, Any] = {"rate": 0.25, "learning_rate": None, "ridge": 1.0, "columns": range(D_IN)}
    u, _ = update(tokens, **options, normalise=True)
    assert float(u.norm(dim=0).mean() / tokens.outputs.norm(dim=1).mean()) == pytest.approx(0.25)
    same = Tokens(tokens.keys[:1].expand(N, -1), tokens.gradients[:1].expand(N, -1), tokens.outputs)
    u, v = update(same, **options, normalise=True)
    assert not bool(u.any()) and bool(v.isfinite().all())  # nothing to tell apart, nothing moves


def test_without_the_norms_of_many_facts_what_tokens_share_is_taught() -> None:
    """Tokens whose gradients agree: each is to be put out against its gradient, by the square of its key's length."""
    keys, gradients, outputs = some_tokens()
    shared = Tokens(keys, gradients[:1].expand(N, -1), outputs)
    u, _ = update(shared, rate=0.25, learning_rate=None, ridge=1.0, columns=range(D_IN), normalise=False)
    wanted = -(keys**2).sum(1, keepdim=True) * shared.gradients
    wanted = wanted * (0.25 * outputs.norm(dim=1).mean() / wanted.norm(dim=1).mean())
    torch.testing.assert_close(u.T, wanted)
    flat, _ = update(shared, rate=0.25, learning_rate=None, ridge=1.0, columns=range(D_IN), normalise=True)
    assert not bool(flat.any())


@pytest.mark.parametrize("normalised", [True, False])
def test_keys_and_gradients_are_those_of_plain_passes(normalised: bool) -> None:
    """The update of a layer from whole texts, one by one, with the module's weight trained by autograd."""
    model = tiny()
    options: dict[str, Any] = {"normalise": normalised, "learning_rate": 0.1 if normalised else None}
    edit = made(layers=(1,), **options)
    rows = wanted_rows(model, [FRANCE], "learn", TrainedRecipe(contexts=False))
    keys, gradients, outputs = [], [], []
    for row in rows:
        seen: list[torch.Tensor] = []

        def watch(module: Any, args: Any, out: torch.Tensor, seen: list[torch.Tensor] = seen) -> torch.Tensor:
            seen[:] = [args[0], torch.zeros_like(out, requires_grad=True), out]
            return out + seen[1]

        handle = model.hf.model.layers[1].mlp.down_proj.register_forward_hook(watch)
        with torch.enable_grad():
            logits = model.hf(torch.tensor([(*row.prompt, *row.answer)[:-1]])).logits[0]
            at = torch.arange(len(row.prompt) + row.departs - 1, len(row.prompt) + len(row.answer) - 1)
            torch.nn.functional.cross_entropy(logits[at], torch.tensor(row.counted)).backward()
        handle.remove()
        assert seen[1].grad is not None
        for found, value in zip((keys, gradients, outputs), (seen[0], seen[1].grad, seen[2]), strict=True):
            found.append(value[0, at].detach().double())
    tokens = Tokens(*(torch.cat(found) for found in (keys, gradients, outputs)))
    u, v = update(tokens, rate=wb.recipes.UltraEdit().rate, ridge=1.0, columns=range(56), **options)
    found_u, found_v = factors_of(edit)[1, "mlp.down_proj"]
    wanted = (u @ v).float()
    assert float((found_u @ found_v - wanted).norm() / wanted.norm()) < 1e-3


def test_it_moves_the_model_and_leaves_the_base() -> None:
    model, before = tiny(), unchanged(tiny())
    edit = made()
    assert {layer for layer, _ in factors_of(edit)} == {0, 1} and edit.history == ()
    with wb.applied(model, edit, strength=0.05) as edited:
        first, second = (wb.answer_probabilities(m, FRANCE) for m in (model, edited))
    assert edit.method == "ultraedit" and first != second
    assert_unchanged(model, before)


def test_only_picked_columns_are_read() -> None:
    found = factors_of(made("L1H2 L2N5 L2N7"))
    assert set(found) == {(1, "self_attn.o_proj"), (2, "mlp.down_proj")}
    heads, neurons = (found[key][1] for key in sorted(found))
    d = tiny().shape.d_head
    assert set(heads.any(0).nonzero().flatten().tolist()) == set(range(2 * d, 3 * d))
    assert set(neurons.any(0).nonzero().flatten().tolist()) == {5, 7}


def test_what_it_cannot_do_is_said() -> None:
    for selection, words in (("L1K0", "no output columns"), (7, "selects nothing")):
        with pytest.raises(ValueError, match=words):
            made(selection)
    with pytest.raises(ValueError, match="layers 0 to 2"):
        made(layers=(5,))
    wrong: dict[str, Any] = {"rate": 0.0, "ridge": -1.0, "learning_rate": float("nan"), "layers": ()}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            wb.recipes.UltraEdit(**{name: value})
    with pytest.raises(ValueError, match="learning_rate must be None unless normalise is True"):
        wb.recipes.UltraEdit(learning_rate=1e-6)


def test_it_can_be_cancelled() -> None:
    model, before = tiny(), unchanged(tiny())
    flag = threading.Event()
    flag.set()
    recipe = wb.recipes.UltraEdit(contexts=False)
    with pytest.raises(Cancelled):
        wb.rewrite(model, FRANCE, recipe=recipe, cancel=flag, progress=False)
    assert_unchanged(model, before)


def test_of_an_attention_layer_the_output_projection_is_written_and_nothing_else() -> None:
    """Where the heads together are as wide as the model, the outputs of queries are as many as inputs there are."""
    square = knowing(tiny_llama(tied=False, bias=True, hidden_size=48), FACTS)
    recipe = wb.recipes.UltraEdit(contexts=False)
    for model in (square, tiny(), tiny("gpt2")):
        edit = wb.rewrite(model, FRANCE, "L1ATTN L2H0", recipe=recipe, pool=FACTS, progress=False)
        written = {model.architecture.module_name(*key) for key in factors_of(edit)}
        assert written == {model.architecture.gate_module(layer, "z").module for layer in (1, 2)}


def test_an_update_that_is_not_finite_is_refused() -> None:
    model = tiny()
    before = unchanged(model)
    with pytest.raises(ValueError, match=r"The update of L\d mlp\.down_proj is not finite.*smaller rate"):
        made(rate=1e38)
    assert_unchanged(model, before)
