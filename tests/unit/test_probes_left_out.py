"""The battery: reasons for what is left out, what is refused, and how it ends early."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, knowing
from tests.unit.test_probes import FRANCE, POOL, an_edit, other, run, tiny
from workbench.editing.applied import applied
from workbench.probing import battery as battery_module
from workbench.probing import requantise
from workbench.probing.probe import probe
from workbench.probing.table import PROBES
from workbench.types import Fact, FactSet, ProbeRow
from workbench.types.cancelling import Cancelled


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def test_reasons_for_what_is_left_out() -> None:
    """A user's fact with five fields and an empty pool: no path, no example, no control, nothing to prime."""
    fact = Fact(
        subject="France", prompt="The capital of France is", question="What is the capital of France?",
        answer="Paris", target="Rome",
    )  # fmt: skip
    report = run(edit=an_edit(facts=(fact,)), pool=FactSet(name="nothing"))
    assert report.control is None
    assert report.partial == ""
    kinds: dict[str, list[bool]] = {}
    for row in report.rows:
        kinds.setdefault(f"{row.probe}: {row.kind}", []).append(row.informative)
    empty = {kind for kind, right in kinds.items() if not any(right)}
    assert empty and all("the base itself" in report.skipped[kind] for kind in empty)
    hint = report.skipped["adversarial: background hint"]
    assert hint == "no other fact about the subject to tell"
    assert set(report.skipped) - empty == {
        "control",
        *("adversarial: background hint", "adversarial: in-context learning", "adversarial: in-context example"),
        "steps: two hops",
        "steps: retained facts",
        "interconnected: multi-hop",
        "interconnected: same answer",
        "interconnected: same subject",
        "held-out questions",
        "priming",
    }
    assert "'nothing' has the answer 'France'" in report.skipped["interconnected: multi-hop"]
    assert report.probes == tuple(p for p in PROBES if p != "priming")
    assert {r.group for r in report.rows} == {"edited"}
    assert any("not measured, priming" in line for line in report.findings)
    with pytest.raises(KeyError, match="skipped: 'nothing' has no untouched fact"):
        report.rate("priming")
    with pytest.raises(ValueError, match="priming was skipped"):
        report.plot("priming")


def test_retained_facts_that_the_pool_does_not_hold_are_named() -> None:
    own = replace(an_edit(), retain_ids=("my-own-fact", "japan-capital"))
    told = run(edit=own, probes="lens").skipped["facts that the edit used, outside the pool"]
    assert told.startswith("1 of 2 are not in") and "my-own-fact" in told and "japan" not in told


def test_a_base_that_does_not_know_the_fact_is_uninformative() -> None:
    fact = capital("Italy", "Tokyo", "Rome", heldout=("Where is the capital of Italy?",))
    report = run(edit=an_edit(facts=(fact,)), probes=["lens", "strength", "relearning", "keywords", "interconnected"])
    assert report.probes == ("interconnected",)
    assert set(report.skipped) >= {"lens", "strength", "relearning", "keywords"}
    assert "does not contain 'Tokyo'" in report.skipped["lens"]
    assert report.rate("interconnected").n == 0
    assert math.isnan(report.rate("interconnected").value)


def test_bad_input() -> None:
    model, edit = tiny(), an_edit()
    another = knowing(tiny_llama(seed=1, tied=False), capitals())
    with pytest.raises(ValueError, match="This edit was fitted on"):
        probe(another, edit, pool=POOL, progress=False)
    with applied(model, edit) as edited, pytest.raises(ValueError, match="pass the base model"):
        probe(edited, edit, pool=POOL, progress=False)
    with pytest.raises(ValueError, match=r"some of \['lens', 'adversarial'.*got \['lenses'\]"):
        run(probes=["lenses"])
    with pytest.raises(ValueError, match="probes must be some of"):
        run(probes=[])
    with pytest.raises(ValueError, match=r"stages must be some of \['unlearn', 'learn'\]"):
        run(stages=["relearn"])
    with pytest.raises(ValueError, match=r"does not hold the fact 'spain-capital'; it holds \['france-capital'\]"):
        run(fact="spain-capital")
    with pytest.raises(ValueError, match="so it is no control"):
        run(control=FRANCE)
    with pytest.raises(ValueError, match="so it is no control"):
        run(edit=an_edit(retain_ids=("spain-capital",)), control=POOL["spain-capital"])
    with pytest.raises(ValueError, match="so it is no control"):  # the edited fact under another id
        run(control=capital("France", "Paris", "Berlin", id="twin"))
    with pytest.raises(ValueError, match="so it is no control"):
        run(edit=an_edit(retain_ids=("spain-capital",)), control=capital("Spain", "Madrid", "Rome", id="twin"))
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        run(max_new_tokens=0)


def test_a_retained_fact_whose_answer_is_the_target_is_not_asked() -> None:
    """It cannot show a spread: it says the target already."""
    roma = other("Colosseum", "Rome", "landmark-city")
    pool = FactSet([*POOL, roma])
    report = run(edit=an_edit(retain_ids=("spain-capital", roma.id)), pool=pool, probes="steps")
    assert {r.fact_id for r in report.rows if r.group == "same"} == {"spain-capital"}
    report = run(edit=an_edit(retain_ids=(roma.id,)), pool=pool, probes="steps")
    assert "with an answer other than 'Rome'" in report.skipped["steps: retained facts"]


def test_a_fact_without_neighbours_says_so_when_primed() -> None:
    alone = capital("France", "Paris", "Rome", relation="capital of its own")
    report = run(edit=an_edit(facts=(alone,)), probes="priming")
    assert {r.kind for r in report.rows} == {"other"}
    assert "has the relation 'capital of its own'" in report.skipped["priming: neighbours"]


def test_a_probe_that_fails_costs_no_other_probes_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(battery: Any) -> None:
        battery.ask("keywords", [battery_module.Prompt("bold", "What is the capital of **France**?", FRANCE)])
        raise MemoryError("no room for gates")

    monkeypatch.setitem(PROBES, "keywords", replace(PROBES["keywords"], run=fail))
    with pytest.warns(UserWarning, match="The probe 'keywords' failed; the others go on"):
        report = run(probes=["interconnected", "keywords", "context"])
    assert report.probes == ("interconnected", "context") and report.partial == ""
    assert report.skipped["keywords"] == "it failed with MemoryError: no room for gates"
    assert {r.probe for r in report.rows} == {"interconnected", "keywords", "context"}


def test_an_error_of_the_callers_own_is_the_callers() -> None:
    """It is neither a probe's failure nor swallowed."""

    def fail(row: ProbeRow) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        run(probes=["interconnected", "context"], on_row=fail)


def test_what_a_control_lacks_is_said() -> None:
    unknown = capital("Italy", "Tokyo", "Paris")
    report = run(control=unknown, probes=["lens", "strength", "keywords", "interconnected", "adversarial"])
    assert "does not answer 'italy-capital'" in report.skipped["control"]
    for name in ("lens: control", "strength: control", "keywords: control"):
        assert "does not contain 'Tokyo'" in report.skipped[name]
    assert "'Tokyo'" in report.skipped["interconnected: multi-hop of the control"]
    assert report.probes == ("lens", "strength", "keywords", "interconnected", "adversarial")


def test_a_letter_for_an_answer_leaves_no_hint() -> None:
    fact = capital("France", "P", "Rome")
    skipped = run(edit=an_edit(facts=(fact,)), probes="adversarial").skipped
    assert "is all of it" in skipped["adversarial: first letter"]


def test_two_hop_paths_do_not_lead_through_other_edited_facts() -> None:
    """Lyon -> France -> Paris changes twice if both are edited: what follows is not the fact's own doing."""
    lyon = POOL["Lyon-city-country"]
    two = replace(an_edit(), facts=(FRANCE, lyon))
    one = [r.prompt for r in run(probes="interconnected").rows if r.kind == "multi-hop" and r.group == "edited"]
    both = run(edit=two, probes="interconnected")
    assert any("Lyon" in prompt for prompt in one)
    assert not [r for r in both.rows if r.kind == "multi-hop" and "Lyon" in r.prompt]


def test_weights_that_cannot_be_folded_are_no_end_of_the_battery(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("quantised weights")

    monkeypatch.setattr(requantise, "fold", fail)
    report = run(probes=["requantise", "strength"])
    assert report.probes == ("strength",) and "quantised weights" in report.skipped["requantise"]


def test_retained_facts_are_neither_control_nor_evaluated() -> None:
    report = run(
        edit=an_edit(retain_ids=("spain-capital", "Louvre-landmark-city")), probes=["interconnected", "priming"]
    )
    assert report.control is None, "the only known neighbour was retained"
    assert not [r for r in report.rows if "Spain" in r.prompt or "Louvre" in r.prompt]
    assert "interconnected: same answer" in report.skipped


def test_chosen_stages_probes_and_control() -> None:
    control = capital("Germany", "Berlin", "Tokyo")
    report = run(stages=["learn"], probes=["strength", "lens"], control=control)
    assert report.stages == ("base", "learn")
    assert report.probes == ("strength", "lens")
    assert report.control == control
    assert {x.prompt.fact_id for x in report.lenses} == {"france-capital", "germany-capital"}


def test_on_row_cancels_and_finished_rows_are_kept() -> None:
    seen: list[ProbeRow] = []
    names: list[str] = []

    def stop(row: ProbeRow) -> bool:
        seen.append(row)
        return len(seen) < 5

    report = run(probes=["strength", "context", "steps"], on_row=stop, on_probe=names.append)
    assert report.partial == "cancelled by on_row during context"
    assert report.probes == ("strength",)
    assert names == ["strength", "context"]
    assert report.rows == tuple(seen)
    assert len(report.rows) == 5
    assert "partial: cancelled" in report.findings[-1]
    assert "partial" in repr(report)
    assert report.curves


def test_a_cancel_flag_ends_it() -> None:
    flag = threading.Event()
    flag.set()
    report = run(cancel=flag)
    assert (report.rows, report.probes) == ((), ())
    assert report.partial == "cancelled during the choice of a control"
    later = threading.Event()
    report = run(
        probes=["context", "steps"], cancel=later, on_probe=lambda name: later.set() if name == "steps" else None
    )
    assert report.probes == ("context",)
    assert report.partial == "cancelled during steps"
    assert {r.probe for r in report.rows} == {"context"}


def test_ctrl_c_keeps_finished_rows() -> None:
    def interrupt(row: ProbeRow) -> None:
        if row.stage == "unlearn":
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="Interrupted during interconnected"):
        report = run(probes=["interconnected"], on_row=interrupt)
    assert report.partial == "interrupted during interconnected"
    assert {r.stage for r in report.rows} == {"base", "unlearn"}
    assert report.rate("interconnected", stage="base").n > 0
    assert tiny().fingerprint == an_edit().base_fingerprint
