"""Probes against their null: percentiles by hand, permuted deltas, equal KL, invented subjects, files and figures."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, edit_of, knowing, some_gates
from tests.unit.test_probe_parts import battery
from workbench.evaluation.answering import Answering, Ask
from workbench.evaluation.floor import MATCHED, equal_strength
from workbench.facts import load_facts
from workbench.facts.synonyms import in_synonyms
from workbench.files.checked_json import wrap
from workbench.files.probes import probes_from_dict, probes_to_dict
from workbench.language.prompts import traced_prompt
from workbench.language.traced_like import traced_like
from workbench.probing.battery import few
from workbench.probing.null import Null
from workbench.probing.outcome import joined, outcome
from workbench.probing.strangers import INVENTED, invented, strangers
from workbench.probing.table import PROBES
from workbench.types import (
    Deltas,
    DenseDelta,
    EditStage,
    GateDelta,
    LowRankDelta,
    NullDraw,
    NullGroup,
    NullOfProbe,
    NullSize,
    ProbeNull,
    ProbeReport,
)
from workbench.types.mentions import find_mentions
from workbench.types.probe_null import ordinal

FRANCE = capitals()[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@lru_cache
def tiny() -> Any:
    return knowing(tiny_llama(tied=False), capitals())


def an_edit() -> Any:
    return edit_of(tiny(), some_gates(tiny(), (1, "post")), some_gates(tiny(), (2, "z"), seed=1), fact=FRANCE)


@lru_cache
def measured() -> ProbeReport:
    size = NullSize(controls=2, permuted=2, never_known=2, prompts=4, slow=False)
    given: dict[str, Any] = {"pool": capitals(), "stages": "learn", "max_new_tokens": 3, "progress": False, "seed": 2}
    return wb.probe(tiny(), an_edit(), probes=("lens", "interconnected", "strength"), null=size, **given)


def of_values(value: float, **groups: list[tuple[float, bool]]) -> NullOfProbe:
    named: dict[str, NullGroup] = {"controls": "controls", "permuted": "permuted", "never": "never known"}
    draws = [
        NullDraw(group=named[group], name=f"{group} {i}", value=v, found=f, n=1)
        for group, values in groups.items()
        for i, (v, f) in enumerate(values)
    ]
    return NullOfProbe(
        measure="share of prompts that give the old answer",
        finding="the old answer is recovered",
        false_in=("never known",),
        value=value,
        found=value > 0,
        n=5,
        draws=tuple(draws),
    )


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_a_percentile_is_the_share_of_values_below_and_half_of_the_equal_ones() -> None:
    one = of_values(
        0.5, controls=[(0.1, True), (0.5, True), (0.9, True), (0.4, True)], never=[(0.0, False), (1.0, True)]
    )
    assert one.percentile("controls") == pytest.approx(100 * (2 + 0.5) / 4)
    assert one.percentile("never known") == 50
    assert one.percentile("permuted") is None


def test_false_positives_are_counted_where_nothing_is_to_be_found() -> None:
    one = of_values(0.5, controls=[(1.0, True)] * 7, never=[(0.0, False), (0.2, True), (0.0, False), (0.0, False)])
    assert (one.false_positives.value, one.false_positives.n) == (0.25, 4), "controls know their answers"
    assert one.words == (
        "null: share of prompts that give the old answer 0.50 of 5 prompts, the 0th percentile of 7 untouched facts, "
        f"the 100th of 4 subjects that it never knew; false positives {one.false_positives}"
    )


@pytest.mark.parametrize(
    ("n", "words"), [(0, "0th"), (1, "1st"), (11, "11th"), (22, "22nd"), (93, "93rd"), (100, "100th")]
)
def test_ordinals(n: int, words: str) -> None:
    assert ordinal(n) == words


@pytest.mark.parametrize("wanted", [0.01, 0.5, 4.0, 90.0])
def test_the_strength_of_equal_kl_is_found_by_bisection(wanted: float) -> None:
    asked: list[float] = []

    def kl(strength: float) -> float:
        asked.append(strength)
        return 0.7 * strength**2

    found = equal_strength(kl, wanted)
    assert found is not None and abs(0.7 * found**2 - wanted) <= MATCHED * wanted
    assert len(asked) < 20


def test_a_kl_out_of_reach_has_no_strength() -> None:
    assert equal_strength(lambda s: min(s, 1.0), 5.0) is None
    assert equal_strength(lambda s: s, 0.0) is None
    assert equal_strength(lambda s: s, float("nan")) is None


@pytest.mark.parametrize(
    ("asked", "size"),
    [(None, None), (False, None), (True, NullSize()), ("quick", NullSize.quick()), (NullSize(controls=3),) * 2],
)
def test_sizes_by_word(asked: Any, size: NullSize | None) -> None:
    assert NullSize.of(asked) == size


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"controls": -1}, "controls must be 0 or more, got -1"),
        ({"controls": 0, "permuted": 0, "never_known": 0}, "at least one"),
        ({"prompts": 0}, "prompts must be at least 1"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        NullSize(**options)
    asked: Any = "all"
    with pytest.raises(ValueError, match=r"null must be None, True, 'quick' or a wb.NullSize"):
        wb.probe(tiny(), an_edit(), progress=False, null=asked)


# --- permuted deltas --------------------------------------------------------------------------------------------------


def test_permuted_gates_are_the_same_gates_at_other_places() -> None:
    delta = GateDelta({(1, "post"): torch.arange(40.0), (2, "z"): torch.arange(6.0)})
    other, again, third = delta.permuted(3), delta.permuted(3), delta.permuted(4)
    for key, gate in delta.gates.items():
        assert sorted(other.gates[key].tolist()) == gate.tolist()
    assert not torch.equal(other.gates[1, "post"], delta.gates[1, "post"])
    assert other.digest() == again.digest() != third.digest()
    assert other.n_moved() == delta.n_moved() and other.largest_move() == delta.largest_move()


def test_permuted_columns_keep_what_is_written_and_exchange_what_is_read() -> None:
    u, v = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 30)
    v[:, :4] = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    other = LowRankDelta({(1, "mlp.down_proj"): (u, v)}).permuted(1).factors[1, "mlp.down_proj"]
    assert torch.equal(other[0], u) and not torch.equal(other[1], v)
    assert sorted(map(tuple, other[1].T.tolist())) == sorted(map(tuple, v.T.tolist())), "whole columns move"
    assert torch.allclose((other[0] @ other[1]).norm(), (u @ v).norm())


def test_a_delta_without_gates_or_columns_refuses_in_words() -> None:
    dense = DenseDelta({"model.norm.weight": torch.ones(42)})
    with pytest.raises(ValueError, match=r"of the kind 'dense' .* cannot be permuted"):
        dense.permuted(0)
    both = Deltas((GateDelta({(1, "z"): torch.tensor([1.0, 0.0])}), dense))
    with pytest.raises(ValueError, match="cannot be permuted"):
        both.permuted(0)
    gates = Deltas(
        (GateDelta({(1, "z"): torch.arange(9.0)}), LowRankDelta({(1, "m"): (torch.ones(2, 1), torch.eye(1, 9))}))
    )
    assert [part.kind for part in gates.permuted(0).parts] == ["gates", "low-rank"]


# --- what is measured -------------------------------------------------------------------------------------------------


def test_each_group_is_measured_by_the_probes_own_number() -> None:
    report = measured()
    assert report.null is not None and set(report.null.probes) == {"lens", "interconnected", "strength"}
    assert report.null.probes["lens"].value == report.lens().latent("old")
    assert report.null.probes["lens"].found == report.lens().pretends
    assert report.null.probes["strength"].value == report.curve("strength").y["p_old"][-1]
    assert len(report.null.probes["lens"].of("permuted")) == len(report.null.strengths)
    assert len(report.null.probes["lens"].of("never known")) == 2
    controls = {draw.name for draw in report.null.probes["lens"].of("controls")}
    assert controls and controls <= {f.id for f in capitals()} - {FRANCE.id}
    for name in controls:
        with wb.applied(tiny(), an_edit()) as edited:
            alone = wb.lens(edited, capitals()[name]).latent("old")
        (draw,) = [d for d in report.null.probes["lens"].of("controls") if d.name == name]
        assert draw.value == pytest.approx(alone, abs=1e-6)


def test_permuted_deltas_have_the_edits_kl() -> None:
    null = measured().null
    assert null is not None and null.kl is not None
    asks = [Ask("chat", prompt) for prompt in null.kl_prompts]
    assert asks[0].prompt == FRANCE.question
    for name, strength in null.strengths.items():
        delta = an_edit().delta().permuted(int(name.split()[1])).scaled(strength)
        with wb.applied(tiny(), replace(an_edit(), stages=(EditStage("learn", delta),))) as model:
            values = Answering(tiny()).kl(model, asks, max_new_tokens=3)
        assert sum(values) / len(values) == pytest.approx(null.kl, rel=1.05 * MATCHED)


def test_an_edit_that_cannot_be_permuted_says_so_and_the_rest_is_measured() -> None:
    weights = {"model.norm.weight": tiny().hf.get_parameter("model.norm.weight").detach() * 1.1}
    edit = replace(an_edit(), stages=(EditStage("learn", DenseDelta(weights)),))
    size = NullSize(controls=1, permuted=2, never_known=1)
    report = wb.probe(tiny(), edit, probes="lens", pool=capitals(), max_new_tokens=2, progress=False, null=size)
    assert report.null is not None and "cannot be permuted" in report.null.skipped["permuted"]
    assert {draw.group for draw in report.null.probes["lens"].draws} <= {"controls", "never known"}


def test_a_null_that_is_cancelled_leaves_the_report() -> None:
    class Later:
        def __init__(self) -> None:
            self.asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 12

    report = wb.probe(
        tiny(), an_edit(), probes="lens", pool=capitals(), progress=False, null=True, max_new_tokens=2, cancel=Later()
    )
    assert report.null is None and report.lenses and "during the null" in report.partial
    assert "null" in report.skipped


def test_strangers_differ_in_their_subject_only_and_are_read_at_the_same_place() -> None:
    made = strangers(tiny(), FRANCE, 2)
    assert [one.subject for one in made] == list(INVENTED[:2])
    assert len({one.id for one in made}) == 2 and {one.answer for one in made} == {"Paris"}
    assert invented(capital("France", "Paris", "Rome", question="What is its capital?")) == []
    own = traced_prompt(tiny(), FRANCE)
    other = traced_like(tiny(), own, FRANCE, made[0])
    assert other.answer_id == own.answer_id and other.fact_id == made[0].id
    assert made[0].subject in other.text and FRANCE.subject not in other.text
    same = traced_like(tiny(), own, FRANCE, FRANCE)
    assert (same.token_ids, same.text) == (own.token_ids, own.text)


def test_few_prompts_are_taken_of_each_kind_in_turn() -> None:
    from workbench.facts.wordings import Prompt

    own = [Prompt(kind, f"{kind}{i}", FRANCE) for kind in "abc" for i in range(3)]
    beside = [Prompt("d", "d0", FRANCE, group="same")]
    assert [p.text for p in few([*own, *beside], 4)] == ["a0", "b0", "c0", "a1"]
    assert few([*own, *own, *beside], None) == [*own, *beside]
    assert few(beside, 4) == beside, "a probe that asks others only"


def test_every_probe_says_in_which_group_a_finding_is_false() -> None:
    for probe in PROBES.values():
        assert probe.measure is not None and probe.measure.false_in


def test_a_quick_null_leaves_out_the_slow_probes_and_says_so() -> None:
    names = ("lens", "relearning", "requantise", "priming", "adversarial")
    own = battery(tiny(), an_edit())
    quick = Null(own, names, NullSize.quick())
    assert quick.probes() == ["lens", "adversarial"]
    assert set(quick.skipped) == {"relearning", "requantise", "priming"}
    assert Null(own, names, NullSize()).probes() == list(names)
    null = ProbeNull(stage="learn", size=NullSize.quick(), skipped=quick.skipped)
    assert null.words("priming").startswith("no null measured: a quick null leaves it out")


def test_relation_words_are_exchanged_for_synonyms_and_subjects_are_not() -> None:
    assert in_synonyms("What is the capital of France?", "France") == "What is the seat of government of France?"
    assert in_synonyms("Who wrote City of Glass?", "City of Glass") == "Who authored City of Glass?"
    assert in_synonyms("Which country does sushi come from?", "sushi") == "Which nation does sushi originate from?"
    assert in_synonyms("Where is it?", "it") is None
    for fact in load_facts().core.filter(split="dev"):
        other = in_synonyms(fact.question, fact.subject)
        assert other is not None and fact.subject in other, fact.id
        named = [len(find_mentions(text, fact.answers)) for text in (other, fact.question)]
        assert named[0] == named[1], fact.id


# --- words, files, figures --------------------------------------------------------------------------------------------


def test_findings_name_the_percentile_or_say_that_there_is_none() -> None:
    report = measured()
    lens = next(f for f in report.findings if f.kind == "lens" and f.stage == "learn" and f.group == "edited")
    assert "percentile of" in lens and "false positives" in lens
    bare = replace(report, null=None)
    lens = next(f for f in bare.findings if f.kind == "lens" and f.stage == "learn" and f.group == "edited")
    assert lens.endswith("; no null measured")
    assert not any("null" in f for f in bare.findings if f.kind == "lens" and f.stage == "base")
    assert outcome(bare).null.startswith("No null was measured")
    assert outcome(report).null.startswith("Found where there is nothing to find: layer-by-layer lens")


def test_a_null_is_saved_and_version_4_is_read(tmp_path: Path) -> None:
    report = measured()
    again = ProbeReport.load(report.save(tmp_path / "probes.json"))
    assert again.null == report.null
    fields = {k: v for k, v in probes_to_dict(report).items() if k not in ("kind", "schema_version", "sha256", "null")}
    old = wrap("workbench-probes", fields) | {"schema_version": 4}
    assert probes_from_dict(json.loads(json.dumps(old))).null is None


def test_nulls_of_two_parts_are_one() -> None:
    report = measured()
    assert report.null is not None

    def part(*names: str, **changes: Any) -> ProbeReport:
        assert report.null is not None
        null = replace(report.null, probes={n: report.null.probes[n] for n in names}, **changes)
        return replace(report, probes=names, asked=names, null=null)

    both = joined(part("lens"), part("strength")).null
    assert both is not None and list(both.probes) == ["lens", "strength"]
    other = joined(part("lens"), part("strength", size=NullSize())).null
    assert other is not None and list(other.probes) == ["strength"], "nulls of two sizes are not mixed"
    kept = joined(part("lens"), replace(part("strength"), null=None)).null
    assert kept is not None and list(kept.probes) == ["lens"]


def test_the_null_is_drawn_and_tabled(tmp_path: Path) -> None:
    from workbench.widgets.probe.views import all_rates

    report = measured()
    assert "null" in report.figures and "null" not in replace(report, null=None).figures
    figure = report.plot("null")
    assert {trace.name for trace in figure.data} >= {"the edited fact", "subjects that it never knew"}
    table = report.null_table()
    assert (
        set(table.probe) == {"lens", "interconnected", "strength"} and len(replace(report, null=None).null_table()) == 0
    )
    page = report.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "permuted deltas of equal KL" in page
    assert "Null: what the probes find" in all_rates(report)
    assert "Null: what the probes find" not in all_rates(replace(report, null=None))
    empty = ProbeNull(stage="learn", size=NullSize())
    assert replace(report, null=empty).figures == tuple(name for name in report.figures if name != "null")
