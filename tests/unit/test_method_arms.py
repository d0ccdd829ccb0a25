"""Every method is an arm of a comparison, with random selections of its size beside it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.short_recipes import in_short
from tests.helpers.small_fits import FACTS, RETAIN, assert_unchanged, unchanged
from tests.helpers.small_fits import recipe as ia3
from tests.helpers.tiny_facts import tiny
from workbench.comparing.method_arms import WHERE, lineup
from workbench.facts.closing import closed_relations
from workbench.types import ArmTable, BaseRecipe, FactSet

HELDOUT = ("Where is the capital of France?", "What city is capital?", "What is France?", "Who is the capital?")
FRANCE = replace(FACTS[0], heldout=HELDOUT)
SELECTION = "L1N5 L1N6 L1N7"
"""Of one module, as memories want it."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def compared(*arms: str | BaseRecipe, selection: Any = SELECTION, **options: Any) -> ArmTable:
    given: dict[str, Any] = {"recipe": ia3(steps=2), "retain": RETAIN, "pool": FACTS, "progress": False}
    return wb.compare(tiny(), FRANCE, selection, arms=arms, **{**given, **options})


def short(name: str, **changes: Any) -> BaseRecipe:
    return in_short(wb.recipes.RECIPES[name], **{"mismatched": 1, "force": True, "min_tokens": 1, **changes})


@pytest.mark.filterwarnings("ignore:The target vector did not move")  # nothing above the last layer reads the subject
@pytest.mark.parametrize("name", wb.recipes.RECIPES)
def test_every_method_is_an_arm(name: str, tmp_path: Path) -> None:
    """Evaluated as its own edit is, on the selection where it takes one; the model stays as it was."""
    model, before = tiny(), unchanged(tiny())
    recipe = short(name)
    takes = recipe.trains != "nothing"
    table = compared(recipe, "none", random_beside=False)
    assert_unchanged(model, before)
    row, untouched = table.rows
    stage = recipe.stage_names[-1]
    assert row.report.stages == ("base", stage) and row.recipe == recipe.name and table.notes == ()
    assert row.selection == (wb.Selection(SELECTION) if takes else None)
    assert row.trained > 0 and row.unit == {"gates": "gates", "nothing": "tokens"}.get(recipe.trains, "weights")
    asked = [[(r.group, r.prompt) for r in one.report.rows if r.stage == "base"] for one in table.rows]
    assert asked[0] == asked[1] and {"control", "neighbour", "heldout"} <= {group for group, _ in asked[0]}
    assert (row.reached is None) == (row.validation is None) == (stage == "unlearn")
    assert row.beside is None and untouched.reached is None
    changes = {"early_stop": None, "average": 0, "draw_back": None} if row.reached is not None else {}
    alone = in_short(recipe, **changes)
    edit = wb.rewrite(model, FRANCE, row.selection, recipe=alone, retain=RETAIN, pool=FACTS, progress=False)
    with wb.applied(model, edit) as edited:
        for answer in (r for r in row.report.rows if r.stage == stage and r.form == "chat"):
            assert wb.ask(edited, answer.prompt) == answer.text
    assert row.report.closed_relations == edit.closed_relations
    again = ArmTable.load(table.save(tmp_path / "arms.json"))
    assert again.summary().equals(table.summary()) and again.verdict == table.verdict
    assert table.write_html(tmp_path / "arms.html").exists()


@pytest.mark.filterwarnings("ignore:The target vector did not move")
@pytest.mark.parametrize("name", ["lora", "memit"])
def test_random_selections_stand_beside_a_method(name: str) -> None:
    table = compared(short(name), "none", selection="L0N5 L1N6 L1N7")
    label = table.arms[0]
    assert table.arms == (label, f"{label}: random-layers", f"{label}: random-anywhere", "none")
    own = table.runs(label, reached=table.rows[0].reached is not False)[0]
    given = wb.Selection("L0N5 L1N6 L1N7")
    assert own.selection == given
    for ending, layers in (("random-layers", {0: 1, 1: 2}), ("random-anywhere", None)):
        rows = [row for row in table.rows if row.arm == f"{label}: {ending}"]
        assert [row.seed for row in rows] == [0, 1, 2] and {row.beside for row in rows} == {label}
        for row in rows:
            assert row.selection is not None and not row.selection & given
            counts = Counter(c.layer for c in row.selection)
            assert counts == layers if layers else counts.total() == 3
        assert len({str(row.selection) for row in rows}) == 3, "each draw is another"
    assert f"{table.words_of(label)} against random, same layers: " in table.verdict
    assert "Against random, same layers: not run" not in table.verdict, "there is no selection of its own to speak of"


@pytest.mark.filterwarnings("ignore:The target vector did not move")
@pytest.mark.parametrize("name", ["grace", "wise", "rome", "emmet"])
def test_what_moves_one_module_is_compared_with_one_module(name: str) -> None:
    table = compared(short(name))
    drawn = [row.selection for row in table.rows if row.arm.endswith("anywhere")]
    assert len(drawn) == 3 and all(s is not None and len(s) == 3 and len({c.layer for c in s}) == 1 for s in drawn)
    assert all(c.layer != 1 for s in drawn if s is not None for c in s)


@pytest.mark.filterwarnings("ignore:The target vector did not move")
def test_what_a_method_chooses_is_compared_with_other_modules() -> None:
    """A closed form writes whole MLPs: of those no other is in the same layer, and another one is anywhere."""
    table = compared(short("rome", layers=(1,)), selection=None)
    assert {str(row.selection) for row in table.rows if row.beside} == {"L0MLP", "L2MLP"}
    assert any(note.startswith("rome: random-layers was not run. Cannot draw 1 other") for note in table.notes)


@pytest.mark.parametrize(
    ("name", "selection", "note"),
    [
        ("in-context", SELECTION, ""),
        ("lora", None, "lora recipe: random-anywhere was not run: lora recipe moves the whole model"),
        ("full", SELECTION, "full recipe: random-layers was not run: full fine-tuning moves whole layers"),
    ],
)
def test_where_there_is_nothing_to_draw_a_note_says_so(name: str, selection: Any, note: str) -> None:
    """A context has no random control, and needs no note: nothing was selected."""
    table = compared(short(name), selection=selection)
    assert any(n.startswith(note) for n in (*table.notes, ""))
    assert len(table.notes) == len(set(table.notes)), "once, not once a draw"
    if not note:
        assert len(table.rows) == 1 and table.notes == ()


def test_what_a_method_refuses_is_noted_and_the_others_go_on() -> None:
    table = compared(short("grace"), "none", selection="L0N1 L1N1")
    assert table.arms == ("none",)
    refused = "grace was not run. A memory stands beside one output projection and reads its input"
    assert table.notes[0].startswith(refused) and table.notes[0] in table.verdict
    assert table.notes[1:] == tuple(f"grace: {name} was not run: grace was not run." for name in WHERE)
    with pytest.raises(ValueError, match=f"No arm could be run. {refused}"):
        compared(short("grace"), selection="L0N1 L1N1")


def test_a_recipe_of_the_same_name_as_an_arm_is_another_arm() -> None:
    table = compared("lora", short("lora"), random_beside=False)
    assert table.arms == ("lora", "lora recipe") and table.words_of("lora recipe") == "LoRA"
    assert list(lineup(["memit"], last_steps=9, random_beside=False)) == ["memit"]
    words = [arm.words for arm in lineup([*wb.recipes.RECIPES], last_steps=9, random_beside=True).values()]
    assert len(set(words)) == len(words), "lines of a table go by these words"


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (("memot",), r"arms must be some of .*'none'.*names of built-in recipes \(.*'memit'.*got \['memot'\]"),
        (("memit", "memit"), r"'memit' is there twice; .*dataclasses.replace\(recipe, name="),
        ((wb.recipes.ROME(), wb.recipes.ROME(seed=1)), "'rome' is there twice"),
        ((3,), r"got \['int'\]"),
    ],
)
def test_arms_that_are_none(arms: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compared(*arms)


def test_another_methods_recipe_for_all_arms_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"got a ROME. Give that as an arm: arms=\('selected', ROME\(...\)\)"):
        compared("selected", recipe=wb.recipes.ROME())


def test_a_method_is_read_as_the_selection_is() -> None:
    """At one step's values, not at a mean over steps: the same settings as an arm of their own give the same rows."""
    mine = ia3(name="mine", steps=6, average=3)
    table = compared("selected", mine, random_beside=False, recipe=ia3(steps=6))
    assert table.arms == ("selected", "mine") and table.rows[0].report.rows == table.rows[1].report.rows


def test_a_method_with_more_steps_is_looked_at_as_often_in_all() -> None:
    table = compared(short("lora", steps=9), random_beside=False, recipe=ia3(steps=3))
    assert table.notes == ("LoRA was looked at every 6 steps, the other arms every 2.",)


def test_what_a_method_closed_on_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluation of a keyed update knows on which relations it closed, and that of another arm on none."""
    pool = FactSet([replace(fact, relation="country-capital") for fact in FACTS], name="countries")
    for name in ("currency", "continent", "neighbour"):
        more = {"relation": f"country-{name}", "question": f"What is the {name} of Spain?", "role": "related"}
        wordings = {"paraphrases": (f"Which {name} has Spain?",), "heldout": ()}
        pool = FactSet([*pool, replace(FACTS[2], id=f"spain-{name}", **more, **wordings)], name="countries")
    edited = replace(FRANCE, relation="country-capital")
    retain = [f for f in pool if f.role == "retain"]
    table = wb.compare(
        tiny(),
        edited,
        SELECTION,
        arms=("selected", short("keyed")),
        recipe=ia3(steps=1),
        retain=retain,
        pool=pool,
        random_beside=False,
        progress=False,
    )
    closed = closed_relations(pool, edited)
    assert len(closed) == 2 and set(closed) < {"country-currency", "country-continent", "country-neighbour"}
    assert [row.report.closed_relations for row in table.rows] == [(), tuple(closed)]
