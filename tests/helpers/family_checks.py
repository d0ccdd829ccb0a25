"""The checks of the suite of families: what each promises, in words for the docs.

A test with ``@check("trace")`` runs over ``TINY`` and is one cell of the table of families for each tiny model. What a
family is refused is asserted and said with ``refused``; it is then not green but refused, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers.families import TINY

CHECKS: dict[str, str] = {
    "added": "what attention and MLP put out is what a layer adds to the residual stream",
    "resumed": "a pass resumed at any layer, and after any prefix, is the whole pass",
    "answers": "greedy answers of padded batches are those of single texts",
    "trace": "causal traces equal plain hooks, cell by cell: three sites, windows, noise and swap",
    "sites": "traces of heads' outputs, queries, keys and values, and severed ones, equal plain hooks, cell by cell",
    "path": "the fast path of tracing is taken, or the plain one where attention is the family's own",
    "head": "a head's slice is that head, and a key-value group's are its heads'",
    "attribution": "attribution of heads, MLPs, neurons and attention layers equals derivatives by plain hooks",
    "ablation": "an ablated head, MLP, neuron or key-value group equals plain hooks",
    "noise": "noise is within 5% of what is asked, in deviations of the states that it is added to",
    "parts": "heads or attention layers, neurons or MLPs, the embedding and biases add up to the logit difference",
    "writes": "what single components add to all logits is their direct effect on the answer's",
    "lens": "the last row of both lenses is the model's own output",
    "support": "the self-check of the model passes",
    "gates": "gates on every site equal plain hooks and the merged weights; strength 0 is the base to the bit",
    "low-rank": "low-rank updates equal plain hooks and the merged weights; strength 0 is the base to the bit",
    "edit": "an edit trains, and only its slices move",
    "solved": "closed-form edits are solved, move only their columns, and equal merged weights and reloaded adapters",
    "bridge": "TransformerLens' hooks, one pass a cell, give the fast path's traces; refused: no bridge",
    "export": "adapters and merged models give the same logits in plain transformers and PEFT",
}
"""By key, what a check promises."""


def check(key: str) -> Callable[[Any], Any]:
    """Run a test over all tiny models, as a check of the table of families.

    Args:
        key: A key of ``CHECKS``.
    """
    assert key in CHECKS, key

    def mark(test: Any) -> Any:
        return pytest.mark.family_check(key)(pytest.mark.parametrize("name", TINY)(test))

    return mark


def refused(record_property: Callable[[str, object], None], reason: str) -> None:
    """Say that a family is refused in this check, after that was asserted.

    Args:
        record_property: pytest's fixture.
        reason: The refusal's own words.
    """
    record_property("refused", reason)
