"""Edges before and after an edit: hand-computed scores, the rule of kinds, the control, files, and what is refused."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.tiny import tiny_gpt2, tiny_llama
from tests.helpers.tiny_facts import by_hand, capitals, edit_of, knowing, some_gates
from workbench.types import CHANGE_KINDS, EdgeChange, EdgeComparison, EdgeMap
from workbench.types.cancelling import Cancelled

FACTS = capitals()
FRANCE, SPAIN = FACTS[0], FACTS[2]
NAN = float("nan")
ROUNDING = 1e-5
"""Some processors round by where numbers lie in memory."""
ON_THE_PATH = ("embedding -> L1V0", "L1H0 -> logits")


@lru_cache
def hand() -> wb.LoadedModel:
    return by_hand()


@lru_cache
def tiny() -> wb.LoadedModel:
    return knowing(tiny_llama(tied=False, bias=True), FACTS)


@lru_cache
def edit() -> wb.Edit:
    return edit_of(tiny(), some_gates(tiny(), (1, "post")), some_gates(tiny(), (0, "z"), seed=1))


def of_head(gate: float) -> EdgeComparison:
    """The model that is worked out with a pencil, its one head multiplied by a gate; every edge exactly."""
    gates = torch.ones(hand().shape.site_size("z"))
    gates[: hand().shape.d_head] = gate
    options: dict[str, Any] = {"form": "cloze", "partner": SPAIN, "pool": FACTS, "progress": False}
    every = wb.edges(hand(), FRANCE, method="patching", **options).n_edges
    return wb.compare_edges(
        hand(), edit_of(hand(), {(1, "z"): gates}), method="patching", k=every, **options
    )  # fmt: skip


def compared(fact: Any = None, **options: Any) -> EdgeComparison:
    given: dict[str, Any] = {"pool": FACTS, "progress": False, **options}
    return wb.compare_edges(tiny(), edit(), fact, **given)


def kinds(changes: EdgeComparison) -> dict[str, str]:
    return {str(one.edge): one.kind for one in changes.changes}


def test_a_head_that_is_shut_weakens_its_edges_to_0() -> None:
    """Logits of 4 and -4 with France's state and -4 and 4 with Spain's: each edge of the path carries -16."""
    found = of_head(0.0)
    assert kinds(found) == dict.fromkeys(ON_THE_PATH, "weakened")
    for change in found.changes:
        assert (change.before, change.after, change.stderr) == (pytest.approx(-16, abs=1e-4), 0.0, None)
        assert change.change == pytest.approx(16, abs=1e-4)
    assert (found.before.clean, found.after.clean) == (pytest.approx(8, abs=1e-4), 0.0)
    assert found.control == pytest.approx(0.0, abs=ROUNDING)
    assert found.counts == {**dict.fromkeys(CHANGE_KINDS, 0), "weakened": 2}


@pytest.mark.parametrize(
    ("gate", "kind", "after"),
    [(-1.0, "turned", 16.0), (1.5, "strengthened", -8 * 1.5 * (8 / 3.25) ** 0.5), (1.0, None, -16.0)],
)
def test_a_head_that_is_turned_or_made_larger(gate: float, kind: str | None, after: float) -> None:
    """A gate of 1.5 writes 1.5, which the last norm multiplies by the root of 8 / 3.25."""
    found = of_head(gate)
    assert kinds(found) == ({} if kind is None else dict.fromkeys(ON_THE_PATH, kind))
    for edge in ON_THE_PATH:
        assert found.after[edge] == pytest.approx(after, abs=1e-3)


def test_every_edge_out_of_a_head_that_is_shut_is_0_and_those_are_weakened() -> None:
    gates = torch.ones(tiny().shape.site_size("z"))
    gates[2 * 8 : 3 * 8] = 0.0
    shut = edit_of(tiny(), {(1, "z"): gates})
    found = wb.compare_edges(tiny(), shut, k=304, pool=FACTS, progress=False)
    out = [one for one in found.changes if str(one.edge.sender) == "L1H2"]
    assert len(out) == 13, "the MLP of its layer, six queries, two keys, two values and the MLP of the next, the logits"
    assert {one.kind for one in out} == {"weakened"} and {one.after for one in out} == {0.0}
    others = [one for one in found.changes if str(one.edge.sender) == "L1H3"]
    assert others and all(one.after for one in others)


def edge_map(*scores: float, **options: Any) -> EdgeMap:
    """Six edges of a made-up model, in the order of their places."""
    values = torch.full((3, 3), NAN)
    values[0, 0], values[1, 0], values[1, 1], values[2] = *scores[:3], torch.tensor(scores[3:])
    given: dict[str, Any] = {
        "senders": ("embedding", "L0H0", "L0MLP"), "receivers": ("L0Q0", "L0MLP", "logits"), "metric": "logit_diff",
        "method": "eap-ig", "steps": 5, "clean": 5.0, "corrupted": -1.0,
    }  # fmt: skip
    return EdgeMap(values=values, **{**given, **options})


EDGES = (
    *("embedding -> L0Q0", "embedding -> L0MLP", "L0H0 -> L0MLP"),
    *("embedding -> logits", "L0H0 -> logits", "L0MLP -> logits"),
)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((3, 2, 1, 0, 0, 0), (3, 2, 1, 0, 0, 0), {}),
        ((3, 2, 1, 0, 0, 0), (-3, 1.5, 0, 0, 0, 0), {0: "turned", 1: "weakened"}),
        ((-3, 2, 1, 0, 0, 0), (-4, 0.1, 1, 0, 0, 0.2), {0: "strengthened", 1: "gone"}),
        ((3, 2, 1, 0, 0, 0), (3, 0, 1, 0, 0, -2), {1: "gone", 5: "new"}),
        ((3, 2, 1, 0, 0, 0.1), (3, 0.1, 1, 0, 0, -2), {1: "gone", 5: "new"}),
        # It moves up since others shrank: not new. It moves down since others grew: not gone.
        ((3, 2, 1, 0, 0, 0), (0, 0, 1, 0, 0, 0), {0: "weakened", 1: "gone"}),
        ((3, 2, 0, 0, 0, 0), (3, 2.5, 0, 4, 0, 5), {1: "strengthened", 3: "new", 5: "new"}),
        ((3, 2, 0.5, 0, 0, 0), (0, 0, 0.4, 0, 0, 0), {0: "weakened", 1: "gone", 2: "weakened"}),
    ],
)
def test_the_rule_of_kinds(before: Any, after: Any, expected: dict[int, str]) -> None:
    """Of the two largest edges of each map."""
    found = EdgeComparison(before=edge_map(*before), after=edge_map(*after), k=2, stage="learn")
    assert kinds(found) == {EDGES[place]: kind for place, kind in expected.items()}
    sizes = [abs(one.change) for one in found.changes]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(found.counts.values()) == len(expected)
    assert ("no change" in repr(found)) == (not expected)


def test_ranks_and_scores_are_those_of_the_maps() -> None:
    found = compared(k=20)
    tops = [{str(edge): i for i, edge in enumerate(m.top(304), 1)} for m in (found.before, found.after)]
    assert len(found.changes) > 20
    for one in found.changes:
        assert (one.before, one.after) == (found.before[one.edge], found.after[one.edge])
        assert [one.rank_before, one.rank_after] == [top[str(one.edge)] for top in tops]
        assert min(one.rank_before, one.rank_after) <= 20
        assert one.kind != "new" or one.rank_before > 20 >= one.rank_after
        assert one.kind != "gone" or one.rank_after > 20 >= one.rank_before
    frame = found.to_frame()
    assert frame["edge"].tolist() == [str(one.edge) for one in found.changes]
    assert frame["change"].tolist() == [one.change for one in found.changes]
    assert frame["stderr"].isna().all() and set(frame["n"]) == {1}
    some = found.of("new", "gone")
    assert [one.kind for one in some].count("new") == found.counts["new"] > 0
    assert list(found.circuit("new", "gone")) == [one.edge for one in some]
    assert len(found.circuit()) == len(found.changes)
    assert found.circuit().base_fingerprint == tiny().fingerprint
    assert found.control == pytest.approx(0.0, abs=ROUNDING)
    control = f"edges by up to {found.control:.2g}" if found.control else "no edge"
    assert f"Control: the same edit at strength 0 changes {control}." in found.words


@pytest.mark.parametrize("method", ["eap", "eap-ig", "patching"])
@pytest.mark.parametrize("maker", [tiny_llama, tiny_gpt2])
def test_strength_0_changes_no_edge(maker: Any, method: Any) -> None:
    model = knowing(maker(**({"tied": False, "bias": True} if maker is tiny_llama else {"tie_word_embeddings": False})))
    some = edit_of(model, some_gates(model, (1, "post"), (1, "z"), (0, "k"), (0, "v")))
    options: dict[str, Any] = {"method": method, "chosen": "L0H1 -> L1MLP, L1H2 -> logits", "progress": False}
    options |= {"pool": FACTS, "k": 1}
    none = wb.compare_edges(model, some, strength=0.0, **options)
    assert none.changes == () and none.control == pytest.approx(0.0, abs=ROUNDING)
    assert float(none.difference.nan_to_num().abs().max()) < ROUNDING
    whole = wb.compare_edges(model, some, **options)
    assert whole.control == pytest.approx(0.0, abs=ROUNDING) and whole.changes and whole.before.n_edges == 2
    assert wb.compare_edges(model, some, control=False, **options).control is None


def test_the_maps_are_those_of_edges() -> None:
    found = compared(stage="unlearn", strength=0.5, corruption="noise", samples=2)
    options: dict[str, Any] = {"corruption": "noise", "samples": 2, "pool": FACTS, "progress": False}
    before = wb.edges(tiny(), FRANCE, **options)
    with wb.applied(tiny(), edit(), "unlearn", 0.5) as edited:
        after = wb.edges(edited, FRANCE, **options)
    for mine, theirs in ((found.before, before), (found.after, after)):
        assert torch.equal(mine.values.nan_to_num(), theirs.values.nan_to_num())
        assert (mine.clean, mine.corrupted) == (theirs.clean, theirs.corrupted)
    assert (found.stage, found.strength, found.edit_id, found.items) == (
        "unlearn", 0.5, edit().id, ("france-capital",),
    )  # fmt: skip
    assert found.k == 100, "the default"


def test_of_several_the_scores_are_means_and_the_error_is_of_their_own_changes() -> None:
    contrasts = [wb.Contrast.of(tiny(), fact, form="cloze", pool=FACTS) for fact in FACTS[:3]]
    steps: list[tuple[int, int]] = []
    many = compared(contrasts, k=30, on_step=lambda done, total: steps.append((done, total)))
    each = [compared(one, k=30, control=False) for one in contrasts]
    whole = wb.edges(tiny(), contrasts, progress=False)
    assert torch.allclose(many.before.values, whole.values, atol=1e-6, equal_nan=True)
    assert many.before.stderr is not None and whole.stderr is not None
    assert torch.allclose(many.before.stderr, whole.stderr, atol=1e-6, equal_nan=True)
    differences = torch.stack([one.difference for one in each])
    assert torch.allclose(many.difference, differences.mean(0), atol=1e-5, equal_nan=True)
    assert many.stderr is not None
    assert torch.allclose(many.stderr, differences.std(0) / 3**0.5, atol=1e-5, equal_nan=True)
    first = many.changes[0]
    place = many.before.receivers.index(str(first.edge.receiver)), many.before.senders.index(str(first.edge.sender))
    assert first.stderr == pytest.approx(float(many.stderr[place]))
    assert many.before.n == 3 and len(many.items) == 3
    assert steps == [(i, 9) for i in range(1, 10)]


def test_a_file_gives_the_same_records(tmp_path: Path) -> None:
    found = compared(FACTS[:2], k=15, form="cloze")
    back = wb.EdgeComparison.load(found.save(tmp_path / "changes.safetensors"))
    assert back.changes == found.changes and isinstance(back.changes[0], EdgeChange)
    assert (back.words, repr(back), back.items, back.control) == (found.words, repr(found), found.items, found.control)
    assert torch.equal(back.difference.nan_to_num(), found.difference.nan_to_num())
    assert back.after.base_fingerprint == found.after.base_fingerprint != back.before.base_fingerprint
    with pytest.raises(ValueError, match="not a workbench-edge-map: it is a workbench-edge-comparison"):
        wb.EdgeMap.load(tmp_path / "changes.safetensors")
    (tmp_path / "cut").write_bytes((tmp_path / "changes.safetensors").read_bytes()[:-9])
    with pytest.raises(ValueError, match="cut"):
        wb.EdgeComparison.load(tmp_path / "cut")


def test_the_figure_has_both_scores_of_the_largest_changes() -> None:
    found = compared(k=20)
    figure = found.plot(k=4)
    before, after = figure.data[1:]
    largest = found.changes[:4][::-1]
    assert list(before.x) == [one.before for one in largest] and list(after.x) == [one.after for one in largest]
    assert list(figure.layout.yaxis.ticktext) == [f"{one.edge} ({one.kind})".replace(">", "&gt;") for one in largest]
    assert str(found.changes[0].edge) in figure.layout.meta["alt"]
    none = EdgeComparison(before=found.before, after=found.before, k=5, stage="learn")
    assert "no edge changed" in none.plot().layout.meta["alt"]
    for k in (0, 1.5, True):
        with pytest.raises(ValueError, match="k must be a whole number"):
            found.plot(k=k)


def test_a_comparison_is_cancelled_between_maps() -> None:
    class AfterOne:
        def is_set(self) -> bool:
            return bool(steps)

    steps: list[int] = []
    flag: Any = AfterOne()
    with pytest.raises(Cancelled, match="after 1 of 3 maps"):
        compared(on_step=lambda done, _: steps.append(done), cancel=flag)
    assert steps == [1]


@pytest.mark.parametrize("k", [0, -1, 305, 2.5, True, "10"])
def test_a_number_of_edges_that_is_none(k: Any) -> None:
    with pytest.raises(ValueError, match="k must be a whole number of edges from 1"):
        compared(k=k)


def test_what_is_refused() -> None:
    other = knowing(tiny_llama(1, tied=False), FACTS)
    with pytest.raises(ValueError, match="fitted on"):
        wb.compare_edges(other, edit())
    with wb.applied(tiny(), edit()) as edited, pytest.raises(ValueError, match="pass the base model"):
        wb.compare_edges(edited, edit())
    with pytest.raises(ValueError, match="at least one"):
        compared([])
    with pytest.raises(ValueError, match="partner= is for one fact"):
        compared(FACTS[:2], partner=SPAIN)
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"method": mistyped("acdc")}, "method must be one of"),
        ({"stage": "forget"}, "forget"),
        ({"chosen": ""}, "empty circuit"),
        ({"metric": "rank"}, "has no gradient"),
        ({"chosen": "L0H1 -> L1MLP", "k": 2}, "from 1 to 1"),
    )
    for options, words in refused:
        with pytest.raises(ValueError, match=words):
            compared(**options)


def test_maps_that_do_not_fit_each_other_are_refused() -> None:
    plain = edge_map(3, 2, 1, 0, 0, 0)
    others: tuple[tuple[EdgeMap, str], ...] = (
        (edge_map(3, 2, 1, 0, 0, 0, metric="log_prob"), "differ in metric"),
        (edge_map(3, 2, 1, 0, 0, 0, method="eap"), "differ in method"),
        (edge_map(3, 2, NAN, 0, 0, 0), "scores of different edges"),
    )
    for other, words in others:
        with pytest.raises(ValueError, match=words):
            EdgeComparison(before=plain, after=other, k=2, stage="learn")
    with pytest.raises(ValueError, match="from 1 to 6"):
        EdgeComparison(before=plain, after=plain, k=7, stage="learn")
    with pytest.raises(ValueError, match="A kind of change is one of"):
        EdgeComparison(before=plain, after=plain, k=6, stage="learn").of(mistyped("lost"))
