"""The README: short, its links resolve, its lines run, and its numbers are those of the files that they come from."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

import workbench as wb
from benchmarks.animation import MOST_BYTES, Frame, in_few_colours, join
from benchmarks.edit_quality import PAGE
from benchmarks.lib.rates import over_facts, vars_of
from benchmarks.pictures import PICTURES, stored_figure
from benchmarks.readme import RESULTS, ten_lines
from tests.helpers.doc_pages import unwrapped
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, knowing

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
QUALITY = json.loads((ROOT / "benchmarks/results/edit_quality.json").read_text(encoding="utf-8"))
PART = QUALITY["the default edit"]
MEASURED = json.loads(RESULTS.read_text(encoding="utf-8"))
RATE = re.compile(r"-?\d\.\d\d \[-?\d\.\d\d, -?\d\.\d\d\]")


def section(title: str) -> str:
    """The text below a heading."""
    assert f"\n## {title}\n" in TEXT, f"README.md has no heading {title!r}"
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def table(text: str) -> list[list[str]]:
    """The cells of the rows of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def two(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"


def rate(values: dict[str, Any]) -> str:
    """A rate with its interval, as the README writes it."""
    return f"{two(values['value'])} [{two(values['low'])}, {two(values['high'])}]"


def test_length() -> None:
    assert len(TEXT.splitlines()) <= 150
    assert max(len(line) for line in TEXT.splitlines() if not line.startswith("|")) <= 140


def test_links_and_pictures_resolve() -> None:
    links = [*re.findall(r"\]\(([^)\s]+)\)", TEXT), *re.findall(r'<img src="([^"]+)"', TEXT)]
    local = [link.partition("#")[0] for link in links if not link.startswith(("http", "#"))]
    assert len(local) > 25
    assert [link for link in local if not (ROOT / link).is_file()] == []
    assert not re.search(r"\]\([^)]*$", TEXT, re.MULTILINE), "a link is broken at a line's end"


def test_what_a_reader_looks_for_in_this_order() -> None:
    titles = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    assert titles == [
        *("Why", "Install", "Ten lines", "Or click", "What you can do", "How well it works", "Models and data"),
        *("Notebooks", "Citing and contributing"),
    ]
    before = TEXT.partition("\n## ")[0]
    assert before.startswith("# Circuit workbench\n")
    assert before.count("![") == 1, "one picture, the animated one"
    assert all(command in section("Install") for command in ("make lab", "make test", "pip install"))
    assert len([line for line in ten_lines(TEXT)[0].splitlines() if line]) == 10
    assert {path.name for path in (ROOT / "notebooks").glob("*.ipynb")} == set(
        re.findall(r"\(notebooks/([\w.]+)\)", section("Notebooks"))
    )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> wb.LoadedModel:
    """Instead of the bundled model and facts: a model that knows capitals, with more neurons than an edit takes."""
    facts = capitals()
    model = knowing(tiny_llama(tied=False, intermediate_size=700), facts)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("workbench.facts.known._bundled_facts", lambda: facts)
    monkeypatch.setattr(wb, "load_model", lambda: model)
    monkeypatch.chdir(tmp_path)
    return model


def test_the_ten_lines_run(tiny: wb.LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(ten_lines(TEXT)[0], names)
    heads, *rows = capsys.readouterr().out.splitlines()
    assert heads == str(names["heads"].top(3))
    assert [row.split()[0] for row in rows] == ["base", "rate", "new", "forget", "control", "neighbour"]
    assert wb.load_edit(tmp_path / "out/rome").id == names["edit"].id
    assert names["edit"].facts[0].target == "Rome"


def test_the_output_below_the_ten_lines_was_measured() -> None:
    script, output = ten_lines(TEXT)
    assert script == MEASURED["script"], "python -m benchmarks.readme runs it"
    assert output == MEASURED["printed"], "python -m benchmarks.readme prints what belongs there"


def test_the_cell_to_click(tiny: wb.LoadedModel) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", section("Or click"), re.DOTALL)
    *before, last = script.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(before), names)
    app = eval(last, names)
    assert isinstance(app, wb.Workbench)
    assert app.model is tiny


def test_rates_are_those_of_the_benchmark() -> None:
    rows = table(section("How well it works"))
    assert len(rows) == 6
    names = {words: (name, goal) for name, (words, goal) in PAGE.items()}
    for words, mean, worst, goal, reached in rows:
        name, wanted = names[words]
        assert mean == rate(PART["mean"][name]), words
        assert worst == two(PART["worst"][name]), words
        assert goal == wanted, words
        assert reached == verdict(PART["mean"][name]["value"], goal), words


def verdict(value: float, goal: str) -> str:
    """Whether a goal such as "at least 0.95" is reached; empty without one."""
    if not goal:
        return ""
    found = re.fullmatch(r"at (least|most) ([\d.]+)", goal)
    assert found is not None, goal
    side, bound = found.groups()
    return "yes" if (value >= float(bound) if side == "least" else value <= float(bound)) else "no"


def test_verdicts() -> None:
    assert [verdict(0.95, goal) for goal in ("at least 0.95", "at least 0.96", "at most 0.95", "at most 0.9", "")] == [
        *("yes", "no", "yes", "no", "")
    ]


def test_rates_in_sentences_were_measured() -> None:
    lines = TEXT.replace(ten_lines(TEXT)[1], "").splitlines()
    prose = unwrapped("\n".join(line for line in lines if not line.startswith("|")))
    edits = json.loads((ROOT / "benchmarks/results/editors.json").read_text(encoding="utf-8"))["results"]["recommended"]
    assert f"on {'twenty' if len(edits) == 20 else len(edits)} other facts" in prose
    names = ("new", "forget", "control", "neighbour", "same_answer", "same_subject")
    means = [over_facts([edit for edit in edits if name in edit["rates"]["learn"]], name) for name in names]
    sealed = json.loads((ROOT / "benchmarks/results/sealed.json").read_text(encoding="utf-8"))["rates"]
    assert RATE.findall(prose) == [
        rate(PART["mean"]["reversed_new"]),
        *(rate(vars_of(mean)) for mean in means),
        *(rate(sealed[method]["new"]) for method in ("ia3", "recommended")),
    ]


NUMBER_WORDS = {"twenty": 20, "ten": 10}
MINUTES = {1: "one minute", 2: "two minutes", 3: "three minutes"}
FIRST = json.loads((ROOT / "benchmarks/results/first_run.json").read_text(encoding="utf-8"))
UNTIL_A_CLICK = ("environment", "conversion", "lab")


def test_numbers_in_sentences() -> None:
    quality, install = unwrapped(section("How well it works")), unwrapped(section("Install"))
    facts, relations = re.findall(r"on (\w+) test facts of (\w+) relations", quality)[0]
    assert (NUMBER_WORDS[facts], NUMBER_WORDS[relations]) == (PART["facts"], len(PART["relations"]))
    assert f"{QUALITY['arguments']['max_controls']} controls an edit" in quality
    assert f"{MEASURED['environment_gb'] + MEASURED['cache_gb']:.1f} GB of disk" in install
    fit = json.loads((ROOT / "benchmarks/results/speed_fit.json").read_text(encoding="utf-8"))
    seconds = 10 * round(fit["found"]["parts: whole default edit, s"] / 10)
    assert f"edit takes about {seconds} s on {fit['where']['cores']} cores" in unwrapped(TEXT)
    assert f"The {len(wb.load_facts())} facts" in unwrapped(TEXT)


def test_minutes_of_the_installation_were_measured() -> None:
    total = sum(FIRST[part]["seconds"] for part in UNTIL_A_CLICK)
    assert f"{MINUTES[round(total / 60)]} on two cores" in unwrapped(section("Install"))
    page = unwrapped((ROOT / "docs/install.md").read_text(encoding="utf-8"))
    assert f"took {round(total)} s on two cores" in page
    assert all(f"{round(FIRST[part]['seconds'])} s" in page for part in (*UNTIL_A_CLICK, "demo"))


def shown(content: bytes) -> tuple[Image.Image, list[int]]:
    """An animated picture, and how long each of its frames is seen, milliseconds."""
    picture = Image.open(io.BytesIO(content))
    durations = []
    for place in range(getattr(picture, "n_frames", 1)):
        picture.seek(place)
        durations.append(picture.info["duration"])
    return picture, durations


def test_the_animated_picture() -> None:
    file = ROOT / "docs/images/workbench.gif"
    assert "docs/images/workbench.gif" in TEXT.partition("\n## ")[0]
    picture, durations = shown(file.read_bytes())
    assert file.stat().st_size <= MOST_BYTES
    assert len(durations) >= 10
    assert all(1000 <= duration <= 3000 for duration in durations), "time to read, and not to fall asleep"
    assert picture.info["loop"] == 0, "again and again"


def png(size: tuple[int, int], colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def test_frames_are_joined() -> None:
    colours = ("white", "#12324f", "#d9480f")
    frames = [Frame(png((30, 20), colour), 1.0 + place) for place, colour in enumerate(colours)]
    picture, durations = shown(join(frames))
    assert durations == [1000, 2000, 3000]
    assert picture.size == (30, 20)
    for place, colour in enumerate(colours):
        picture.seek(place)
        assert picture.convert("RGB").getpixel((7, 7)) == ImageColor.getrgb(colour)
    with pytest.raises(ValueError, match=r"one size, got \[\(30, 19\), \(30, 20\)\]"):
        join([*frames, Frame(png((30, 19), "white"), 1.0)])


def test_frequent_colours_stay_as_they_are() -> None:
    shades = np.stack([np.arange(256), np.arange(256), 255 - np.arange(256)], axis=1).astype(np.uint8)
    shades = np.concatenate([shades, shades[:200, ::-1]])
    white = np.full((5000, 3), 255, dtype=np.uint8)
    pixels = np.concatenate([white, shades, np.full((40, 3), [18, 50, 79], dtype=np.uint8)])
    palette, places = in_few_colours(pixels)
    assert palette.shape == (255, 3)
    again = palette[places].astype(int)
    assert (again[:5000] == 255).all()
    assert (again[-40:] == [18, 50, 79]).all()
    assert np.abs(again - pixels).sum(1).max() <= 16, "no other colour is far off"


def test_pictures_come_from_stored_notebooks() -> None:
    for (notebook, last), name in PICTURES.items():
        assert stored_figure(ROOT / f"notebooks/{notebook}.ipynb", last).data
        assert (ROOT / "docs/images" / name).is_file(), "python -m benchmarks.pictures"
    with pytest.raises(LookupError, match=r"no cell that ends in 'nothing\(\)'"):
        stored_figure(ROOT / "notebooks/01_quickstart.ipynb", "nothing()")
