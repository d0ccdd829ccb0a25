"""The rows that a fit shares with the selector, and the recipe's options that decide which these are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.small_fits import FACTS, FRANCE, RETAIN, SPAIN
from tests.helpers.tiny_facts import tiny
from workbench.editing.methods.table import Recipe
from workbench.editing.selector import default_selection, selection_facts
from workbench.editing.training import fit_rows
from workbench.editing.training.batching import hardest_batches, retain_batches
from workbench.editing.training.fit_rows import FitRows, retain_rows, wanted_rows


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def test_half_of_a_batch_may_be_the_rows_that_an_edit_harms_most() -> None:
    """The other half is drawn as ever; while few rows were seen, rows in turn fill up."""
    latest = {4: 0.1, 9: 0.9, 2: 0.3, 7: 0.2}
    batches = hardest_batches(range(5), range(5, 12), 6, 0, latest)
    drawn = retain_batches(range(5), range(5, 12), 3, 7)
    for _ in range(4):
        batch, usual = next(batches), next(drawn)
        assert batch[:3] == usual
        hardest = [row for row in (9, 2, 7, 4) if row not in usual][:3]
        assert batch[3 : 3 + len(hardest)] == hardest and len(batch) == 6
    latest.clear()
    batch, usual = next(batches), next(drawn)
    assert batch[:3] == usual and len(batch) > 3


def test_where_the_kl_is_taken() -> None:
    """Of the retained rows the fit's own are changed, and not those that the default selector spares."""
    model, other = tiny(), RETAIN[0]
    for kl_on in ("answer", "first token", "whole text"):
        rows = FitRows(model, [FRANCE], Recipe(kl_on=kl_on), retain=RETAIN, selection_facts=RETAIN)
        plain = retain_rows(model, list(RETAIN), [FRANCE])
        assert rows.selection_retained == plain
        assert rows.fisher_rows == rows.retained
        [was, *_], [row, *_] = plain.near, rows.retained.near
        text = (*was.prompt, *was.answer)
        assert (*row.prompt, *row.answer) == (text[: len(row.prompt) + 1] if kl_on == "first token" else text)
        assert len(row.prompt) == len(was.prompt) if kl_on != "whole text" else len(row.prompt) < len(was.prompt)
        assert row.answer == row.counted
    nobody = FitRows(model, [FRANCE], Recipe(kl_on="whole text"), retain=[replace(other, relation="other")])
    assert not nobody.retained.near and len(nobody.retained.far) == 1


def test_fisher_information_on_fewer_wordings_is_on_the_first_of_each_neighbour() -> None:
    model = tiny()
    worded = [replace(f, paraphrases=("Where?", "Who?")) for f in RETAIN]
    few = FitRows(model, [FRANCE], Recipe(fisher_wordings=1), retain=worded, selection_facts=worded)
    near = few.retained.near
    assert len(near) == 3 * len(worded)
    assert few.fisher_rows.near == few.selection_retained.near == near[::3]


def test_rows_are_built_once_and_say_whose_answers_they_use(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = tiny(), []

    def counted(*args: Any, **options: Any) -> Any:
        asked.append(args)
        return wanted_rows(*args, **options)

    monkeypatch.setattr(fit_rows, "wanted_rows", counted)
    rows = FitRows(model, [FRANCE, SPAIN], Recipe(), retain=RETAIN, selection_facts=RETAIN[:1])
    assert rows.selection_wanted is rows.wanted("learn") is rows.wanted("learn")
    assert [facts for _, facts, *_ in asked] == [[FRANCE], [SPAIN]]
    assert rows.retained is rows.fisher_rows is rows.retained
    assert (rows.selection_ids, rows.fisher_ids, rows.kl_ids) == (RETAIN[:1].ids, RETAIN.ids, RETAIN.ids)
    short = FitRows(model, [FRANCE], Recipe(answers="short", optimiser="adam"), retain=RETAIN)
    assert short.selection_wanted != short.wanted("learn")
    assert (short.selection_ids, short.fisher_ids, short.kl_ids) == ((), (), RETAIN.ids)
    assert FitRows(model, [FRANCE], Recipe(retain_weight=0.0), retain=RETAIN).kl_ids == ()


def test_the_default_selection_takes_the_rows_of_a_fit() -> None:
    model = tiny()
    spared = selection_facts(model, [FRANCE], pool=FACTS, progress=False)
    rows = FitRows(model, [FRANCE], Recipe(), selection_facts=spared)
    plain = default_selection(model, FRANCE, pool=FACTS, k=20, progress=False)
    assert default_selection(model, FRANCE, k=20, rows=rows, progress=False) == plain
    with pytest.raises(ValueError, match=r"rows are of \['france-capital'\] on 'tiny', not of \['spain-capital'\]"):
        default_selection(model, SPAIN, rows=rows, k=20, progress=False)
