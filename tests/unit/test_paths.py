"""Paths between two components, against plain hooks on the plain model, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.edges import FACTS, FRANCE, Plain
from tests.helpers.families import model_of
from tests.helpers.plain_hooks import single
from workbench.types import Component
from workbench.types.circuit import as_node

CLOSE = pytest.approx


def path(model: wb.LoadedModel, sender: str, receiver: str, **options: Any) -> wb.PathEffect:
    given = {"form": "cloze", "pool": FACTS, **options}
    return wb.path_patch(model, given.pop("item", FRANCE), sender, receiver, **given)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma 2", "gpt-neox", "granite"])
@pytest.mark.parametrize(
    ("sender", "receiver"),
    [("L0H1", "L1MLP"), ("embedding", "L1V1"), ("L0MLP", "L2Q3"), ("L1H2", "logits"), ("L1MLP", "L2K0")],
)
def test_the_receiver_alone_reads_the_corrupted_write(name: str, sender: str, receiver: str) -> None:
    plain = Plain(name)
    found = path(plain.model, sender, receiver)
    assert found.effect == CLOSE(plain.edge(as_node(sender), as_node(receiver)), abs=2e-5)
    assert found.direct == CLOSE(plain.edge(as_node(sender), "logits"), abs=2e-5)


def into(entries: slice, states: Tensor) -> Callable[[Tensor], Tensor]:
    def put(value: Tensor) -> Tensor:
        value = value.clone()
        value[0, :, entries] = states[:, entries]
        return value

    return put


@pytest.mark.parametrize("name", ["llama", "gpt2", "granite"])
def test_a_head_reads_alone_and_the_others_of_its_group_do_not(name: str) -> None:
    """Its z where its whole layer reads the corrupted write, put into the clean run."""
    plain = Plain(name)
    more = plain.difference(as_node("L0MLP"))
    norm, out = plain.at(2, plain.names.attn_norm), plain.at(2, plain.names.out)
    kept: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value.clone())
        return value

    plain.run(plain.clean, {norm: (True, lambda x: x + more), out: (True, keep)})
    width = plain.shape.d_head
    expected = plain.run(plain.clean, {out: (True, into(slice(width, 2 * width), kept[0][0]))})
    expected -= plain.run(plain.clean, {})
    assert path(plain.model, "L0MLP", "L2H1").effect == CLOSE(expected, abs=2e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox", "granite"])
def test_in_total_everything_reads_it(name: str) -> None:
    plain = Plain(name)
    out, width = plain.at(1, plain.names.out), plain.shape.d_head
    z = plain.state(out, True, plain.corrupted)
    expected = plain.run(plain.clean, {out: (True, into(slice(2 * width, 3 * width), z))}) - plain.run(plain.clean, {})
    assert path(plain.model, "L1H2", "L2MLP").total == CLOSE(expected, abs=2e-5)
    mlp = plain.state(plain.at(0, plain.names.mlp_added), False, plain.corrupted)
    expected = plain.run(plain.clean, {plain.at(0, plain.names.mlp_added): (False, lambda _: mlp[None])})
    found = path(plain.model, "L0MLP", "L1MLP")
    assert found.total == CLOSE(expected - plain.run(plain.clean, {}), abs=2e-5)
    all_of_it = path(plain.model, "embedding", "L0MLP")
    assert all_of_it.clean[0] + all_of_it.total == CLOSE(all_of_it.corrupted[0], abs=2e-5)


def test_a_path_is_the_exact_score_of_its_edge() -> None:
    model = single()
    edges = wb.edges(
        model, FRANCE, method="patching", chosen="L0H1 -> L1MLP -> logits", form="cloze", pool=FACTS, progress=False
    )
    for sender, receiver in (("L0H1", "L1MLP"), ("L1MLP", "logits")):
        assert path(model, sender, receiver).effect == CLOSE(edges[f"{sender} -> {receiver}"], abs=1e-5)


def test_wholes_and_several_items() -> None:
    model = single()
    one, other = (path(model, "L0ATTN", "L1KV1", item=fact) for fact in FACTS[:2])
    both = path(model, "L0ATTN", "L1KV1", item=FACTS[:2])
    assert both.effects == CLOSE((one.effect, other.effect), abs=1e-6)
    assert both.stderr == CLOSE(abs(one.effect - other.effect) / 2, abs=1e-6)
    assert "L0ATTN -> L1KV1: logit difference" in both.words
    contrast = wb.Contrast.of(model, FRANCE, form="cloze", pool=FACTS)
    assert wb.path_patch(model, contrast, "L0ATTN", "L1KV1").effect == CLOSE(one.effect, abs=1e-5)
    noisy = path(model, "L0MLP", "L1ATTN", corruption="noise", samples=2)
    assert noisy.corruption == "noise"
    assert torch.isfinite(torch.tensor([noisy.effect, noisy.direct, noisy.total])).all()


def test_what_is_no_path() -> None:
    model = single()
    for sender, receiver, words in (
        ("L2H1", "L1MLP", "runs backwards"),
        ("L1MLP", "L1H0", "within layer 1"),
        ("L1N3", "L2MLP", "sends nothing"),
        ("L0H9", "L2MLP", "indices run from 0 to 5"),
        ("L0H1", "L2V4", "only 2 key-value groups"),
    ):
        with pytest.raises(ValueError, match=words):
            path(model, sender, receiver)
    with pytest.raises(ValueError, match="no edge L1H2 -> L1MLP"):
        path(model_of("gpt-neox"), "L1H2", "L1MLP")
    assert Component.parse("L1H2") == as_node(" L1H2 ")
