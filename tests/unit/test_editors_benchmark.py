"""The benchmark of editors: what it keeps of an edit, which facts it draws, and its table."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import workbench as wb
from benchmarks import editors
from benchmarks.levers import LEVERS
from benchmarks.lib import kept
from benchmarks.lib.code import Code
from benchmarks.lib.editor_table import table
from benchmarks.lib.kept import Kept
from benchmarks.lib.parts import in_turn, part
from tests.helpers.scripted import FRANCE, POOL, place, run, scripted_edit, tiny
from workbench.evaluation.answering import Answering
from workbench.types import FactSet

TIMED = {"settings": {"seconds_to_fit": 2.0, "seconds_for_covariance": 1.0}}


@pytest.fixture
def made(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> editors.Editors:
    del script
    monkeypatch.setattr(kept, "code_of", lambda _: Code("c" * 40, False, "today"))
    monkeypatch.setattr(wb, "load_facts", lambda: POOL)
    monkeypatch.setattr(wb, "rewrite", lambda *_, **__: scripted_edit(provenance=TIMED))
    monkeypatch.setattr(wb, "evaluate", lambda *_, **options: run(stages=options["stages"]))
    monkeypatch.setattr(wb, "counterfact_rates", lambda *_, **__: {"learn": {"efficacy": run().rate("train_new")}})
    probes = SimpleNamespace(stages=("base", "learn"), rates={"priming": {"learn": {"bleed": run().rate("bleed")}}})
    monkeypatch.setattr(wb, "probe", lambda *_, **__: probes)
    args: Any = SimpleNamespace(split="dev", seed=1, relations=1, max_controls=60)
    return editors.Editors(Answering(tiny()), Kept(tmp_path / "editors.jsonl.xz", "editors.py"), args)


def test_what_is_kept_of_an_edit(made: editors.Editors, monkeypatch: pytest.MonkeyPatch) -> None:
    done = made.single("ia3", FRANCE, False)
    assert set(done["rates"]) == {"base", "learn"} and done["rates"]["learn"]["new"]["value"] == 0.25
    assert done["counterfact"]["efficacy"]["value"] == 0.5 and done["probes"]["priming"]["bleed"]["n"] == 4
    assert {row["stage"] for row in done["answers"]} == {"base", "learn"}
    assert done["numbers"] == 56 and done["seconds"] <= 0, "the covariance is reported apart"
    json.dumps(done)
    monkeypatch.setattr(wb, "rewrite", lambda *_, **__: pytest.fail("it is on file"))
    assert made.single("ia3", FRANCE, False) == done
    text = table({"ia3": [done, done]})
    assert text.splitlines()[2].startswith("| ia3 (2) | 0.25 ") and "| 56.00 (n=2) |" in text
    assert "answers" not in editors.without_texts(done)


def test_a_draw_is_made_once(made: editors.Editors, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = FactSet(
        [place("Prado", "Madrid", "Tokyo", "dev"), place("Louvre", "Paris", "Tokyo", "dev"), *POOL[:1]], name="drawn"
    )
    monkeypatch.setattr(wb, "load_facts", lambda: pool)
    monkeypatch.setattr(wb, "known_facts", lambda _, facts, **__: facts)
    monkeypatch.setattr(editors, "in_other_words", lambda _, fact: float(fact.subject != "Louvre"))
    assert [f.id for f in made.facts(1)] == ["Prado-place"], "the base does not know the Louvre in other words"
    monkeypatch.setattr(wb, "known_facts", lambda *_, **__: pytest.fail("it is on file"))
    assert [f.id for f in made.facts(1)] == ["Prado-place"]
    monkeypatch.setattr(wb, "known_facts", lambda _, facts, **__: facts)
    with pytest.raises(SystemExit, match="Only 1 facts of 1 relations"):
        made.facts(3)


def test_no_fact_of_another_test_draw_is_drawn(made: editors.Editors, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = FactSet([place(name, "Madrid", "Tokyo", "test") for name in ("Prado", "Louvre", "Tate")], name="drawn")
    monkeypatch.setattr(wb, "load_facts", lambda: pool)
    monkeypatch.setattr(wb, "known_facts", lambda _, facts, **__: facts)
    monkeypatch.setattr(editors, "in_other_words", lambda *_: 1.0)
    made.args.split = "test"
    first = {fact.id for fact in made.facts(2)}
    made.args.seed = 2
    assert {fact.id for fact in made.facts(1)} == {fact.id for fact in pool} - first
    with pytest.raises(SystemExit, match="Only 1 facts"):
        made.facts(2)


def test_published_test_facts_are_not_drawn() -> None:
    taken = editors.published()
    assert "japan-continent" in taken or len(taken) >= 60
    assert taken <= set(wb.load_facts().ids)


@pytest.mark.parametrize(("text", "wrong"), [("1/2", False), ("2/2", False), ("0/2", True), ("3/2", True), ("1", True)])
def test_a_part_of_the_facts(text: str, wrong: bool) -> None:
    if wrong:
        with pytest.raises(ArgumentTypeError, match="K from 1 to N"):
            part(text)
    else:
        assert part(text).take(range(5)) == ([0, 2, 4] if text == "1/2" else [1, 3])


@pytest.mark.parametrize(("n", "found"), [(0, ""), (4, "adfb"), (9, "adfbec")])
def test_one_of_each_in_turn(n: int, found: str) -> None:
    assert "".join(in_turn(["abc", "de", "f", ""], n)) == found


def test_the_recommended_recipe_is_the_lever_that_was_chosen() -> None:
    chosen = LEVERS["AlphaEdit, then consolidate 16, firm"]
    assert editors.recipe_of("recommended", chosen.seed) == replace(chosen, name="recommended")


def test_a_draw_alone_measures_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setattr(wb, "load_model", tiny)
    monkeypatch.setattr(editors.Editors, "facts", lambda *_: [FRANCE])
    monkeypatch.setattr(editors.Editors, "single", lambda *_: pytest.fail("something was measured"))
    editors.main(["--draw-only", "--facts", "1", "--out", str(tmp_path / "editors.json")])
    assert capsys.readouterr().out == f"dev: {FRANCE.id}\n"
    with pytest.raises(SystemExit, match="--draw-only needs --facts"):
        editors.main(["--draw-only", "--facts", "0", "--out", str(tmp_path / "editors.json")])


def test_methods_are_names_of_recipes() -> None:
    assert editors.recipe_of("ia3", 7) == wb.Recipe(seed=7)
    assert editors.recipe_of("lora", 3).method == "lora" and editors.recipe_of("lora", 3).seed == 3
    with pytest.raises(ValueError, match="Unknown recipe 'memt'"):
        editors.main(["--methods", "memt"])
