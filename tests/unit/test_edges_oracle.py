"""Scores of edges and recovery against TransformerLens' own, on models without grouped heads: it takes no others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformer_lens.tools.analysis import attribution_patching as oracle

import workbench as wb
from tests.helpers.edges import FACTS, FRANCE
from tests.helpers.tiny import tiny_gpt2, tiny_llama
from tests.helpers.tiny_facts import knowing
from workbench.types.edge_graph import EdgeGraph

MAKERS: dict[str, Any] = {
    "gpt2": lambda: tiny_gpt2(tie_word_embeddings=False),
    "llama": lambda: tiny_llama(tied=False, bias=True, num_key_value_heads=6),
}
KINDS = {"q_input": "Q", "k_input": "K", "v_input": "V"}


def named(node: oracle.Node) -> str:
    """A node as it is called here."""
    if node.kind in ("embed", "logits"):
        return {"embed": "embedding", "logits": "logits"}[node.kind]
    if node.kind in ("mlp_out", "mlp_in"):
        return f"L{node.layer}MLP"
    return f"L{node.layer}{KINDS.get(node.kind, 'H')}{node.head}"


@pytest.mark.parametrize("family", MAKERS)
def test_eap_and_recovery_are_those_of_transformer_lens(family: str) -> None:
    model = knowing(MAKERS[family](), FACTS)
    contrast = wb.Contrast.of(model, FRANCE, form="cloze", pool=FACTS)
    assert isinstance(contrast.clean, tuple)
    assert isinstance(contrast.corrupted, tuple)
    assert isinstance(contrast.answer, int)
    assert isinstance(contrast.wrong, int)
    clean, corrupted = torch.tensor([contrast.clean]), torch.tensor([contrast.corrupted])
    right, wrong = contrast.answer, contrast.wrong

    def metric(logits: Tensor) -> Tensor:
        return logits[0, -1, right] - logits[0, -1, wrong]

    # Its gradients are of its corrupt run, and its differences lead to its clean one: ours the other way round.
    for parameter in model.bridge.parameters():  # a view's, frozen: its pass needs one that has a gradient
        parameter.requires_grad_(True)
    config = oracle.EdgeAttributionConfig(granularity="edge")
    theirs = oracle.attribution_patch(model.bridge, corrupted, clean, metric, config).edge_scores
    expected: dict[str, float] = {}
    for (writer, reader), score in theirs.items():
        edge = f"{named(writer)} -> {named(reader)}"
        expected[edge] = expected.get(edge, 0.0) + score
    found = wb.edges(model, contrast, method="eap", progress=False)
    assert len(expected) == found.n_edges == EdgeGraph.of(model).n_edges
    for edge, score in expected.items():
        assert found[edge] == pytest.approx(score, abs=1e-3), edge
    kept = {str(edge) for edge in found.top(0.3)}
    circuit = [(writer, reader) for writer, reader in theirs if f"{named(writer)} -> {named(reader)}" in kept]
    recovered = oracle.faithfulness(model.bridge, clean, corrupted, metric, circuit).recovered
    ours = wb.faithfulness(model, contrast, found.top(0.3), minimality=False)
    assert ours.recovery.value == pytest.approx(recovered, abs=1e-3)
