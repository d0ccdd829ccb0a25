"""Scores of edges where the truth is known: a linear model, whose scores add up, and a circuit planted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from tests.helpers.tiny import tiny_gpt2, tiny_tokenizer
from workbench.circuits.edges import _first_order
from workbench.circuits.patching import exact_scores
from workbench.circuits.runs import EdgeRuns, edge_runs
from workbench.circuits.wiring import Wired
from workbench.models.load import LoadedModel, load_model
from workbench.tracing.setup import Setup
from workbench.types import TracedPrompt

A, B, TEXT = 20, 30, (5, 20, 40, 41)
"""The token that differs, in its two forms, and the text."""
PLANTED = "embedding -> L0V1, L0H1 -> L1MLP, L1MLP -> logits, embedding -> L1V2, L1H2 -> L2MLP, L2MLP -> logits"


def item(wired: Wired) -> Setup:
    """The text with A, and with B in its place; the logit of A minus that of B is measured."""
    swapped = tuple(B if token == A else token for token in TEXT)
    clean, corrupted = wired.embed(torch.tensor([TEXT, swapped])).split(1)
    prompt = TracedPrompt(
        text="", token_ids=TEXT, tokens=("a", "b", "c", "d"), subject=(1,), prefix="", answer_id=A, answer_token="a",
        other_id=B, other_token="b", form="cloze", fact_id="planted",
    )  # fmt: skip
    return Setup(prompt, 1, clean, corrupted[:, 1:], "logit_diff")


def wired_runs(hf: Any) -> tuple[LoadedModel, Wired, EdgeRuns]:
    model = load_model(hf, tokenizer=tiny_tokenizer(), name="planted")
    wired = Wired(model)
    return model, wired, edge_runs(wired, item(wired))


def linear_model() -> Any:
    """GPT-2 without norms, with a linear activation, and attention that looks at everything evenly."""
    hf = tiny_gpt2(tie_word_embeddings=False, activation_function="linear").double()
    for block in hf.transformer.h:
        block.ln_1 = block.ln_2 = nn.Identity()
        block.attn.c_attn.weight[:, :80] = 0
        block.attn.c_attn.bias[:80] = 0
    hf.transformer.ln_f = nn.Identity()
    return hf.eval()


def test_on_a_linear_model_scores_add_up_to_the_total_and_are_exact() -> None:
    model, wired, runs = wired_runs(linear_model())
    total = runs.corrupted_measure - runs.clean_measure
    assert abs(total) > 0.1
    eap, ig = _first_order(wired, runs, None), _first_order(wired, runs, 5)
    exact = exact_scores(wired, runs, wired.graph.mask)
    assert torch.allclose(eap, exact, atol=1e-4)
    assert torch.allclose(ig, exact, atol=1e-4)
    # What all that is written carries to the logits, and what all readers of the embedding make of it.
    assert float(exact[-1].sum()) == pytest.approx(total, abs=1e-4)
    assert float(exact[:, 0].sum()) == pytest.approx(total, abs=1e-4)
    # Every layer between is a cut too: all edges from before it to behind it carry the total.
    graph = wired.graph
    before, behind = graph.n_before(1, "attn"), graph.attention_readers + 1
    assert float(exact[behind:, :before].sum()) == pytest.approx(total, abs=1e-4)
    assert model.shape.n_layers == 3


def planted_model(noise: float = 0.03) -> Any:
    """A GPT-2 of weak random weights in which two paths lead from the token to the answer: by head 1 of layer 0 and the
    MLP of layer 1, and by head 2 of layer 1 and the MLP of layer 2."""
    hf = tiny_gpt2(tie_word_embeddings=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            parameter.mul_(noise if "ln_" not in name else 0.0)
            if "ln_" in name and name.endswith("weight"):
                parameter.fill_(1.0)
        e = torch.linalg.qr(torch.randn(40, 40, generator=generator))[0].T  # directions, [40, d_model]
        hf.transformer.wte.weight.add_(6 * e[10])  # for the norm's scale
        hf.transformer.wte.weight[A] += 2 * e[0]
        hf.transformer.wte.weight[B] -= 2 * e[0]
        _plant(hf, (0, 1), 1, e[0], e[1], e[2])
        _plant(hf, (1, 2), 2, e[0], e[3], e[4])
        hf.lm_head.weight[A] += 3 * (e[2] + e[4])
        hf.lm_head.weight[B] -= 3 * (e[2] + e[4])
    return hf.eval()


def _plant(hf: Any, head: tuple[int, int], mlp: int, read: Tensor, between: Tensor, written: Tensor) -> None:
    """A head that carries one direction to another, and an MLP that carries that one on."""
    layer, index = head
    attention, last = hf.transformer.h[layer].attn, hf.transformer.h[mlp].mlp
    attention.c_attn.weight[:, 80 + 10 * index] += 2 * read  # the first entry of its values
    attention.c_proj.weight[10 * index] += between
    last.c_fc.weight[:, 0] += 2 * between
    last.c_fc.weight[:, 1] -= 2 * between
    last.c_proj.weight[0] += written
    last.c_proj.weight[1] -= written


def auroc(scores: Tensor, true: Tensor) -> float:
    """How often a true edge has the larger score, of all pairs of a true and another edge."""
    pairs = scores[true][:, None] - scores[~true][None]
    return float(((pairs > 0).double() + (pairs == 0).double() / 2).mean())


@pytest.mark.parametrize("steps", [None, 5])
def test_planted_edges_come_first(steps: int | None) -> None:
    _, wired, runs = wired_runs(planted_model())
    assert runs.clean_measure > 1 > -1 > runs.corrupted_measure
    mask, true = wired.graph.mask, wired.graph.mask_of(wb.Circuit(PLANTED))
    found = _first_order(wired, runs, steps).abs()
    exact = exact_scores(wired, runs, mask).abs()
    for scores in (found, exact):
        assert auroc(scores[mask], true[mask]) == 1.0
        assert set(scores[mask].topk(6).indices.tolist()) == set(true[mask].nonzero()[:, 0].tolist())
    shuffled = found[mask][torch.randperm(int(mask.sum()), generator=torch.Generator().manual_seed(1))]
    assert auroc(shuffled, true[mask]) < 0.9
