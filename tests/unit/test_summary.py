"""Where an answer is read, and the strongest components, from maps whose numbers are given."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.helpers.plain_hooks import FACTS, FRANCE, SPAIN
from tests.helpers.tiny_facts import by_hand
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import causal_trace
from workbench.tracing.ranking import ranked
from workbench.tracing.summary import where_read
from workbench.types import EffectMap, TracedPrompt

TOKENS = ("The", " capital", " of", " Japan", " is")


def prompt(tokens: tuple[str, ...] = TOKENS, subject: tuple[int, ...] = (3,)) -> TracedPrompt:
    return TracedPrompt(
        fact_id="japan",
        form="cloze",
        text="".join(tokens),
        prefix="",
        token_ids=tuple(range(len(tokens))),
        tokens=tokens,
        subject=subject,
        answer_id=1,
        answer_token=" Tokyo",
    )


def trace(holders: list[dict[int, float]], text: TracedPrompt | None = None, **changes: Any) -> EffectMap:
    """A trace with clean 10 and corrupted 0: by layer, what each position brings back; 0 elsewhere."""
    text = prompt() if text is None else text
    values = torch.zeros(len(holders), len(text.tokens))
    for layer, row in enumerate(holders):
        for position, share in row.items():
            values[layer, position] = 10 * share
    given: dict[str, Any] = {
        "values": values,
        "axes": ("layer", "position"),
        "labels": {"layer": tuple(f"L{i}" for i in range(len(holders))), "position": text.tokens},
        "unit": "resid",
        "metric": "logit_diff",
        "method": "swap",
        "corruption": "swap",
        "clean": 10.0,
        "corrupted": 0.0,
        "prompts": (text,),
    }
    return EffectMap(**{**given, **changes})


def effects(cells: Any, unit: str = "head", **changes: Any) -> EffectMap:
    """Effects with clean 10 and corrupted 0."""
    tensor = torch.tensor(cells)
    axes = ("layer", unit) if tensor.ndim == 2 else ("layer",)
    given: dict[str, Any] = {
        "values": tensor,
        "axes": axes,
        "labels": {axis: tuple(f"{i}" for i in range(n)) for axis, n in zip(axes, tensor.shape, strict=True)},
        "unit": unit,
        "metric": "logit_diff",
        "method": "patching",
        "corruption": "swap",
        "clean": 10.0,
        "corrupted": 0.0,
    }
    return EffectMap(**{**given, **changes})


READ = [{3: 0.98}, {3: 0.9}, {3: 0.6, 4: 0.3}, {3: 0.2, 4: 0.8}, {4: 1.0}]
HEADS = effects([[0.1, 0.0, -0.2], [0.0, 7.8, 0.3], [1.0, 0.2, 0.1]])
MLPS = effects([4.0, 0.5, -1.0], "mlp")


def test_the_storyboard_sentence() -> None:
    found = where_read(trace(READ), HEADS)
    assert found.words == "Read at Japan until L2, at the last token from L3 on; L1H1 carries 78% (the median head 1%)."
    assert [(s.position, s.first, s.last) for s in found.stretches] == [(3, 0, 2), (4, 3, 4)]
    assert [s.recovery for s in found.stretches] == pytest.approx([0.98, 1.0])
    assert found.head is not None and found.head.share == pytest.approx(0.78)
    assert found.head.median == pytest.approx(0.01) and not found.head.estimated and found.mlp is None


def test_raw_and_normalised_maps_read_alike() -> None:
    raw = where_read(trace(READ), HEADS, MLPS)
    shares = [replace(m, values=m.values / 10, normalised=True) for m in (trace(READ), HEADS, MLPS)]
    assert where_read(*shares) == raw
    shifted = [replace(m, clean=4.0, corrupted=-6.0) for m in (trace(READ), HEADS, MLPS)]
    assert where_read(*shifted).words == raw.words
    turned = [replace(m, values=-m.values, clean=-5.0, corrupted=5.0) for m in (trace(READ), HEADS, MLPS)]
    assert where_read(*turned).words == raw.words, "a corruption that raises the metric"


def test_mlps_and_estimates_are_named() -> None:
    found = where_read(trace(READ), replace(HEADS, method="attribution - controls"), MLPS)
    assert found.words.endswith(
        "; L1H1 carries 78% (the median head 1%, by a first-order estimate); L0MLP carries 40% (the median MLP 5%)."
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{3: 0.4, 4: 0.4}] * 3, "No single place carries half of the answer at any layer."),
        ([{3: 1.0}] * 3, "Read at Japan at every layer."),
        (
            [{3: 0.5}, {}, {4: 0.5}],
            "Read at Japan until L0, at the last token from L2 on; no single place carries half of it at L1.",
        ),
        ([{3: 0.49}, {3: 0.51}, {}], "Read at Japan at L1; no single place carries half of it at L0 and L2."),
        (
            [{}, {3: 1.0}, {3: 1.0}, {2: 0.7}, {}, {}],
            "Read at Japan from L1 to L2, at of at L3; no single place carries half of it at L0 and L4 to L5.",
        ),
        ([{3: math.nan, 4: 0.6}, {4: 0.7}], "Read at the last token at every layer."),
        (
            [{3: 1.0}, {3: 1.0}, {0: 1.0}, {3: 0.6}, {2: 0.6}, {1: 0.9}, {4: 1.0}, {4: 1.0}],
            "Read at Japan until L1, at The at L2, at Japan at L3, at the last token from L6 on, "
            "and at 2 more places in between.",
        ),
    ],
)
def test_where_it_is_not_simple(rows: list[dict[int, float]], words: str) -> None:
    assert where_read(trace(rows)).words == words


def test_nothing_is_concentrated() -> None:
    """The sentence does not name a head because it happens to be the first of many."""
    even = effects([[0.9, 0.8, 0.7], [0.6, 0.8, 0.5]])
    found = where_read(trace([{3: 0.3, 4: 0.3}] * 2), even)
    assert found.words == (
        "No single place carries half of the answer at any layer; "
        "no head alone carries a tenth: the strongest, L0H0, 9% (the median head 8%)."
    )


def test_a_corruption_without_effect_locates_nothing() -> None:
    found = where_read(trace(READ, clean=3.02, corrupted=3.01), replace(HEADS, clean=3.02, corrupted=3.01))
    assert found.words == (
        "The corruption hardly changes the logit difference (3.02 clean, 3.01 corrupted): there is nothing to locate."
    )
    assert found.stretches == () and found.head is None


def test_subjects_of_several_tokens_and_twice_in_a_text() -> None:
    fuji = prompt(("Where", " is", " Mount", " F", "uji", "?"), (2, 3, 4))
    assert where_read(trace([{4: 1.0}, {2: 0.9}, {3: 0.7}], fuji)).words.split("; ")[0] == (
        "Read at the last token of Mount Fuji until L0, at the first token of Mount Fuji at L1, "
        "at the second token of Mount Fuji from L2 on."
    )
    both = prompt((" Mount", " Fuji", "?", " Mount", " Fuji", " is"), (0, 1, 3, 4))
    assert where_read(trace([{4: 1.0}, {1: 1.0}, {5: 1.0}], both)).words == (
        "Read at the last token of Mount Fuji (the second, then the first) until L1, at the last token from L2 on."
    )
    assert where_read(trace([{4: 1.0}, {5: 1.0}], both)).words == (
        "Read at the last token of Mount Fuji (the second) until L0, at the last token from L1 on."
    )
    assert where_read(trace([{2: 1.0}, {4: 1.0}], prompt((" Japan", "?", " Japan", "'s", " is"), (0, 2)))).words == (
        "Read at the second Japan until L0, at the last token from L1 on."
    )
    twice = prompt((" Japan", "?", " Japan", "'s", " is"), (0, 2))
    assert where_read(trace([{0: 1.0}, {2: 1.0}], twice)).words == (
        "Read at Japan (the first, then the second) at every layer."
    )


def test_several_facts_are_read_by_role() -> None:
    roles = trace([{0: 0.0}] * 2)
    values = torch.zeros(2, 3)
    values[0, 1], values[1, 2] = 8, 9
    position = ("tokens before the subject", "last subject token", "last token")
    labels = {"layer": ("L0", "L1"), "position": position}
    both = replace(roles, values=values, labels=labels, prompts=(prompt(), prompt()), n=2)
    assert where_read(both).words == "Read at the last subject token until L0, at the last token from L1 on."


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ((HEADS,), "where_read needs a causal trace of the residual stream"),
        ((trace(READ, unit="mlp"),), "where_read needs a causal trace"),
        ((trace(READ, corrupted=None),), "where_read needs a causal trace"),
        ((trace(READ), MLPS), r"heads= needs effects of heads with a corruption .*got a map of the MLP output"),
        ((trace(READ), None, HEADS), "mlps= needs effects of mlps"),
        (
            (trace(READ), replace(HEADS, corrupted=None, method="dla")),
            "heads= needs effects of heads with a corruption",
        ),
        ((trace(READ), replace(HEADS, metric="probability")), "differ in metric \\('logit_diff' and 'probability'\\)"),
        ((trace(READ), replace(HEADS, corruption="noise")), "differ in corruption \\('swap' and 'noise'\\)"),
    ],
)
def test_maps_that_do_not_go_together(maps: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        where_read(*maps)


def test_by_hand_the_model_is_read_as_it_was_made() -> None:
    """Layer 1 moves the fact from France to the last token by one head."""
    swap: dict[str, Any] = {"corruption": "swap", "partner": SPAIN, "form": "cloze", "pool": FACTS, "progress": False}
    found = where_read(
        causal_trace(by_hand(), FRANCE, metric="logit_diff", **swap),
        attribute(by_hand(), FRANCE, method="patching", **swap),
    )
    assert (
        found.words == "Read at France until L1, at the last token from L2 on; L1H0 carries 100% (the median head 0%)."
    )


# Ranking


NEURONS = effects([[0.0, 3.0], [-9.0, 0.4]], "neuron")
ATTENTION = effects([1.5, math.nan, -0.5], "attn")


def test_ranked_over_all_kinds() -> None:
    found = ranked(
        {"heads": HEADS, "mlps": MLPS, "neurons": NEURONS, "attention": ATTENTION, "trace": trace(READ)}, k=6
    )
    assert [str(one.component) for one in found] == ["L1H1", "L0MLP", "L0N1", "L0ATTN", "L2H0", "L1MLP"]
    assert [one.rank for one in found] == [1, 2, 3, 4, 5, 6]
    assert [one.value for one in found] == pytest.approx([7.8, 4.0, 3.0, 1.5, 1.0, 0.5])
    assert [one.share for one in found] == pytest.approx([0.78, 0.4, 0.3, 0.15, 0.1, 0.05])
    assert [one.kind for one in found] == ["H", "MLP", "N", "ATTN", "H", "MLP"]


def test_ranked_by_kind_and_by_size() -> None:
    maps = [HEADS, MLPS, NEURONS, ATTENTION]
    assert [str(one.component) for one in ranked(maps, kinds=["N"], k=9)] == ["L0N1", "L1N1", "L0N0", "L1N0"]
    by_size = ranked(maps, by="abs", k=3)
    assert [(str(one.component), one.value) for one in by_size] == [
        ("L1N0", -9.0),
        ("L1H1", pytest.approx(7.8)),
        ("L0MLP", 4.0),
    ]
    assert len(ranked(maps, k=1000)) == 9 + 3 + 4 + 2, "all that there are, without NaN"
    assert ranked([], k=3) == () and ranked([trace(READ)]) == ()


def test_shares_of_ranked() -> None:
    half = replace(HEADS, values=HEADS.values / 10, normalised=True)
    assert ranked([half], k=1)[0].share == ranked([half], k=1)[0].value == pytest.approx(0.78)
    assert ranked([replace(HEADS, corrupted=None)], k=1)[0].share is None
    assert ranked([replace(HEADS, corrupted=9.99)], k=1)[0].share is None


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        ([HEADS, replace(MLPS, metric="probability")], {}, "differ in metric"),
        ([HEADS, replace(MLPS, corruption="noise")], {}, r"differ in corruption \('swap', 'noise'\)"),
        ([HEADS, replace(MLPS, normalised=True)], {}, "differ in normalised"),
        ([HEADS, HEADS], {}, r"one map a kind, got maps of \['head', 'head'\]"),
        ([HEADS], {"k": 0}, "k must be a whole number of at least 1, got 0"),
        ([HEADS], {"by": "size"}, "by must be 'value' or 'abs', got 'size'"),
        ([HEADS], {"kinds": ["KV"]}, "kinds must be some of"),
        ([HEADS], {"kinds": []}, "kinds must be some of"),
    ],
)
def test_what_cannot_be_ranked(maps: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranked(maps, **options)
