"""What circuits refuse, sentence by sentence: each call says what is wrong and how to mend it, and loses nothing.

One table for ``edges``, ``path_patch``, ``Circuit``, ``faithfulness``, ``faithfulness_curve`` and ``CircuitGraph``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.edges import FACTS, FRANCE
from tests.helpers.families import model_of
from tests.helpers.plain_hooks import single
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import tokenizer_from_files
from workbench.types import EdgeGraph

POOL = wb.FactSet(FACTS, name="capitals")
QUIET: dict[str, Any] = {"progress": False}
OTHER = "f" * 64


def contrast(**options: Any) -> wb.Contrast:
    """Two prompts of one length with answers that differ."""
    made = wb.Contrast.of(single(), FRANCE, form="cloze", pool=POOL)
    given = {"clean": made.clean, "corrupted": made.corrupted, "answer": made.answer, "wrong": made.wrong}
    return wb.Contrast(**{**given, **options})


def longer() -> wb.Contrast:
    """Its corrupted prompt has a token more."""
    made = contrast()
    return contrast(corrupted=[*list(made.corrupted or ()), 7])


def wrong_shape(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, :2]


def not_finite(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 0] * float("nan")


def no_gradient(logits: torch.Tensor) -> torch.Tensor:
    return logits.argmax(-1).float()


CALLS: dict[str, Callable[..., Any]] = {
    "edges": lambda item, **o: wb.edges(single(), item, **QUIET, **o),
    "path_patch": lambda item, **o: wb.path_patch(single(), item, "L0H1", "L1MLP", **o),
    "faithfulness": lambda item, **o: wb.faithfulness(single(), item, "L0MLP L1H2", **QUIET, **o),
    "faithfulness_curve": lambda item, **o: wb.faithfulness_curve(
        single(), item, "L0MLP L1H2", sizes=(0.05,), **QUIET, **o
    ),
    "CircuitGraph": lambda item, **o: wb.CircuitGraph(single(), item, **o).wait(),
}
BACKWARDS, WITHIN = r"runs backwards: layer 1 is computed before layer 2", r"lies within layer 1, where only the MLP"
PARALLEL = r"There is no edge L1H2 -> L1MLP: .* \(a parallel layer\).* Take a receiver of layer 2 or later"
OF_ANOTHER = r"found on another model \(fingerprint ffffffffffff.* Find it again"


@dataclass(frozen=True)
class Bad:
    """A call that is refused.

    Args:
        sentence: What is wrong.
        call: The call.
        words: What the message says.
    """

    sentence: str
    call: Callable[[], Any]
    words: str


def every(sentence: str, words: str, item: Callable[[], Any] = contrast, **options: Any) -> list[Bad]:
    """One sentence for all calls that measure."""
    return [
        Bad(f"{name}: {sentence}", lambda call=call: call(item(), **options), words) for name, call in CALLS.items()
    ]


def on(name: str, words: str, part: Any, sentence: str) -> Bad:
    """A part that is refused by a function of parts."""
    model = model_of("gpt-neox") if "parallel" in sentence else single()
    calls: dict[str, Callable[[], Any]] = {
        "edges": lambda: wb.edges(model, FRANCE, method="patching", chosen=part, pool=POOL, **QUIET),
        "faithfulness": lambda: wb.faithfulness(model, FRANCE, part, pool=POOL, **QUIET),
        "faithfulness_curve": lambda: wb.faithfulness_curve(model, FRANCE, part, pool=POOL, **QUIET),
        "CircuitGraph": lambda: wb.CircuitGraph(model, FRANCE, circuit=part, pool=POOL, compute=False),
    }
    return Bad(f"{name}: {sentence}", calls[name], words)


def path(sender: str, receiver: str, family: str = "") -> Any:
    model = model_of(family) if family else single()
    return wb.path_patch(model, FRANCE, sender, receiver, pool=POOL)


OF_PARTS = ("edges", "faithfulness", "faithfulness_curve", "CircuitGraph")
CASES: list[Bad] = [
    *every("prompts of different length", r"Their tokens are paired by position.* Word one of them", longer),
    *every(
        "a wrong answer that is the answer",
        r"answer",
        lambda: contrast(wrong=contrast().answer),
    ),
    *every("a metric of another shape", r"'wrong_shape' must take logits \[batch, d_vocab\]", metric=wrong_shape),
    *every("a metric that is NaN", r"'not_finite' returned a number that is not finite: \[nan", metric=not_finite),
    *every("an unknown metric", r"metric must be one of .*got 'loss'", metric="loss"),
    Bad(
        "edges: a metric without a gradient",
        lambda: wb.edges(single(), contrast(), metric=no_gradient, **QUIET),
        r"'no_gradient' has no gradient .* Use method='patching'",
    ),
    Bad("Circuit: an edge that runs backwards", lambda: wb.Circuit("L2H1 -> L1MLP"), BACKWARDS),
    Bad("path_patch: an edge that runs backwards", lambda: path("L2H1", "L1MLP"), BACKWARDS),
    Bad("Circuit: an edge within a layer", lambda: wb.Circuit("L1MLP -> L1H0"), WITHIN),
    Bad("path_patch: an edge within a layer", lambda: path("L1MLP", "L1H0"), WITHIN),
    Bad("path_patch: an edge within a parallel layer", lambda: path("L1H2", "L1MLP", "gpt-neox"), PARALLEL),
    Bad("Circuit: a circuit of another model", lambda: elsewhere().check(single()), OF_ANOTHER),
    Bad("Circuit: circuits of two models", lambda: elsewhere() | one_edge(), r"of different models.*copy one's text"),
    *(on(name, PARALLEL, wb.Circuit("L1H2 -> L1MLP"), "an edge within a parallel layer") for name in OF_PARTS),
    *(
        on(name, OF_ANOTHER, wb.Circuit("L0H1 -> L1MLP", base_fingerprint=OTHER), "of another model")
        for name in OF_PARTS
    ),
    *(on(name, r"is (an )?empty", wb.Circuit(), "an empty circuit") for name in OF_PARTS),
    *(
        Bad(
            f"{name}: an ablation that needs items where there is one",
            lambda name=name: CALLS[name](contrast(), ablation="mean"),
            r"ablation='mean' takes means over items, and there is one. Give several, or use ablation='swap'",
        )
        for name in ("faithfulness", "faithfulness_curve")
    ),
]


def elsewhere() -> wb.Circuit:
    return wb.Circuit("L0H1 -> L1MLP", base_fingerprint=OTHER)


def one_edge() -> wb.Circuit:
    return wb.Circuit("L0H1 -> L1MLP", base_fingerprint=single().fingerprint)


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.sentence)
def test_it_is_refused_and_the_model_answers_as_before(bad: Bad) -> None:
    before = logits_before()
    with pytest.raises(ValueError, match=f"(?s){bad.words}"):
        bad.call()
    ids = torch.tensor([list(contrast().clean)])
    with torch.no_grad():
        assert torch.equal(single().hf(ids).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in single().hf.modules())


@cache
def logits_before() -> torch.Tensor:
    with torch.no_grad():
        return single().hf(torch.tensor([list(contrast().clean)])).logits


@cache
def deep() -> wb.LoadedModel:
    """A random model of eighty layers."""
    return wb.load_model(tiny_llama(n_layers=80), tokenizer=tokenizer_from_files(chat=False), name="eighty layers")


def test_a_model_of_eighty_layers_has_edges_paths_faithfulness_and_a_graph() -> None:
    model = deep()
    ids = [int(one) for one in contrast().clean]
    corrupted = [*ids[:2], ids[2] + 1, *ids[3:]]
    with torch.no_grad():  # the two tokens that the corrupted prompt moves most
        last = model.hf(torch.tensor([ids, corrupted])).logits[:, -1]
    moved = last[0] - last[1]
    item = wb.Contrast(clean=ids, corrupted=corrupted, answer=int(moved.argmax()), wrong=int(moved.argmin()))
    edges = wb.edges(model, item, method="eap", **QUIET)
    assert edges.n_edges == EdgeGraph.of(model).n_edges > 100_000
    with pytest.raises(ValueError, match=r"Patching each of \d+ edges takes a forward pass for each; choose some"):
        wb.edges(model, item, method="patching", **QUIET)
    first = next(iter(edges.top(1)))
    exact = wb.edges(model, item, method="patching", chosen=edges.top(1), **QUIET)
    assert wb.path_patch(model, item, first.sender, first.receiver).effect == pytest.approx(exact[first], abs=1e-4)
    found = wb.faithfulness(model, item, edges.top(100), minimality=False, **QUIET)
    assert found.clean == pytest.approx((edges.clean,), abs=1e-4)
    graph = wb.CircuitGraph(model, item, edges=edges, count=300)
    assert len(graph.drawn) == 300
    assert "logits" in graph.view.nodes or len(graph.view.nodes) > 2
    graph.circuit = wb.Circuit("L0MLP -> L79MLP, L79MLP -> logits")
    assert {"L0MLP", "L79MLP", "logits"} <= set(graph.view.nodes)
