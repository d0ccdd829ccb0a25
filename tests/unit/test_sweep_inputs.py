"""What a sweep tells apart, averages and reads again, for items and results that are no facts and no maps."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import workbench as wb
from tests.helpers.panels import FACTS, tiny
from tests.helpers.tiny import random_edit
from workbench.sweeps.averages import mean_of
from workbench.sweeps.command import setting
from workbench.sweeps.folder import OtherSweep
from workbench.sweeps.items import check_takes, items_of
from workbench.types import Edit

FRANCE = FACTS[0]


def asked(model: wb.LoadedModel, edit: Edit) -> list[str]:
    """The held-out questions of an edit."""
    return [question for fact in edit.facts for question in fact.heldout]


def number(model: wb.LoadedModel, item: float) -> float:
    """The item itself."""
    return item


def score(model: wb.LoadedModel, item: float | None) -> dict[str, float | None]:
    """The item under a name, beside another number."""
    return {"score": item, "other": 1.5}


def swept(function: Any, items: Any, out: Path) -> Any:
    return wb.sweep(function, items, out=out, model=tiny(), progress=False)


def test_edits_of_the_same_numbers_for_other_facts_are_told_apart(tmp_path: Path) -> None:
    edit = replace(random_edit(tiny(), "L1N5"), facts=(FRANCE,), retain_ids=())
    other = replace(edit, facts=(replace(FRANCE, heldout=("Which city rules France?",)),))
    assert edit.id == other.id
    assert swept(asked, {"x": edit}, tmp_path)["x"] == list(FRANCE.heldout)
    with pytest.raises(OtherSweep, match="The item 'x' of the sweep in"):
        swept(asked, {"x": other}, tmp_path)
    with pytest.raises(OtherSweep, match="The item 'x'"):
        swept(asked, {"x": replace(edit, retain_ids=("japan-capital",))}, tmp_path)
    assert swept(asked, {"y": other}, tmp_path)["y"] == ["Which city rules France?"]


def test_a_mean_says_what_it_cannot_take_and_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    results = swept(number, {"a": 1.0, "b": float("nan"), "c": 3.0, "d": float("inf")}, tmp_path / "n")
    with pytest.raises(ValueError, match=r"results of \['d'\] are infinite"):
        results.mean()
    assert results.mean(["a", "b", "c"]).value == 2.0 and results.mean(["a", "b", "c"]).n == 2


def test_a_mean_of_dictionaries_takes_an_entry_over_the_items_that_have_it(tmp_path: Path) -> None:
    mean = swept(score, {"a": 2.0, "b": None, "c": 4.0}, tmp_path).mean()
    assert mean["score"].value == 3.0 and mean["score"].n == 2 and mean["other"].n == 3


def test_a_mean_of_dictionaries_leaves_out_no_entry_without_a_word(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"The entry 'score' is of several kinds .*'a' has a float, 'b' a str"):
        swept(score, {"a": 2.0, "b": "n/a"}, tmp_path).mean()
    assert list(mean_of({"a": {"text": "x", "n": 1}, "b": {"text": "y", "n": 2}})) == ["n"]


def test_a_number_that_is_too_large_for_a_mean_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"results of \['b'\] are infinite or too large"):
        swept(number, {"a": 1, "b": 10**400}, tmp_path).mean()


def test_one_id_is_no_list_of_ids(tmp_path: Path) -> None:
    results = swept(number, {"one": 1.0}, tmp_path)
    for of in (results.mean, results.to_frame):
        with pytest.raises(TypeError, match=r"got the text 'one': write \['one'\]"):
            of("one")
    assert results.mean(["one"]).value == 1.0


def test_a_table_keeps_columns_of_the_names_that_it_adds(tmp_path: Path) -> None:
    frame = swept(lambda model, item: {"item": item, "n": 1}, {"a": 2.0}, tmp_path / "a").to_frame()
    assert frame.to_dict("records") == [{"item": "a", "result_item": 2.0, "n": 1}]


def test_details_of_no_item_say_so(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="has no item 'x' among its 1"):
        swept(number, {"a": 1.0}, tmp_path).details("x")


@pytest.mark.parametrize("out", [None, 3, b"folder"])
def test_a_folder_that_is_no_path(out: Any) -> None:
    for opened in (lambda: swept(number, {"a": 1.0}, out), lambda: wb.load_sweep(out)):
        with pytest.raises(TypeError, match="The folder of a sweep is a path"):
            opened()
    with pytest.raises(TypeError, match="The folder of a sweep is a path"):
        wb.SweepPanel(number, {"a": 1.0}, out=out)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="file is a file, and a sweep needs a folder"):
        swept(number, {"a": 1.0}, tmp_path / "file" / "below" / "it")
    with pytest.raises(FileExistsError, match="link is a link to what is not there"):
        swept(number, {"a": 1.0}, tmp_path / "link")


def test_a_data_frame_is_no_list_of_items(tmp_path: Path) -> None:
    frame = pd.DataFrame({"subject": ["France"], "answer": ["Paris"]})
    with pytest.raises(TypeError, match=r"gives the names of its columns. Pass a mapping"):
        swept(number, frame, tmp_path)


def test_edits_for_a_function_that_takes_them_by_name(tmp_path: Path) -> None:
    edit = random_edit(tiny(), "L1N5")
    with pytest.raises(TypeError, match=r"evaluate takes an edit as edit=.*return evaluate\(model, edit=edit\)"):
        swept(wb.evaluate, {"x": edit}, tmp_path)
    with pytest.raises(TypeError, match="takes an edit as edit="):
        wb.SweepPanel(wb.evaluate, {"x": edit}, out=tmp_path)
    check_takes(wb.probe, items_of({"x": edit}))


def test_ids_that_occur_twice_are_found_among_many() -> None:
    ids = [*map(str, range(30_000)), "7"]
    began = time.perf_counter()
    with pytest.raises(ValueError, match=r"more than once: \['7'\]"):
        items_of(ids)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("item", ["Name an artifact of Rome", 5, ["fact", "x"], {"fact": 1}])
def test_items_that_are_no_facts_are_none(item: Any, tmp_path: Path) -> None:
    def one(model: wb.LoadedModel, given: Any) -> float:
        return 1.0

    assert list(swept(one, {"a": item}, tmp_path).facts) == []


def test_a_panel_shows_no_average_of_another_function(tmp_path: Path) -> None:
    wb.sweep(wb.attribute, FACTS[:2], out=tmp_path, model=tiny(), pool=FACTS, progress=False)
    assert wb.SweepPanel(wb.attribute, FACTS[:2], out=tmp_path, model=tiny(), pool=FACTS).average is not None
    assert wb.SweepPanel(wb.causal_trace, FACTS[:2], out=tmp_path, model=tiny(), pool=FACTS).average is None


def test_an_item_with_any_bit_flipped_is_computed_again_or_is_whole(tmp_path: Path) -> None:
    swept(number, {"a": 1.25}, tmp_path)
    (path,) = (tmp_path / "items").glob("*.zip")
    whole = path.read_bytes()
    for i in range(0, len(whole), 7):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1 :])
        assert swept(number, {"a": 1.25}, tmp_path)["a"] == 1.25, i


def test_the_command_refuses_what_is_no_option_of_the_function() -> None:
    with pytest.raises(ValueError, match="'cancel' is one of the sweep's own"):
        setting("cancel=1")
    assert setting("steps=3") == ("steps", 3)


def spectrum(model: wb.LoadedModel, item: int) -> Any:
    """An array that files keep only in this machine's byte order, or not at all."""
    return np.array([1.0, 2.0], dtype=">f8") if item else np.array([1 + 2j])


def test_arrays_of_another_byte_order_and_of_complex_numbers(tmp_path: Path) -> None:
    results = swept(spectrum, {"kept": 1, "not kept": 0}, tmp_path)
    assert results["kept"].tolist() == [1.0, 2.0]
    assert "complex128, which no file keeps: return its real and imaginary parts" in results.failed["not kept"].message
