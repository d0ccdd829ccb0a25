"""Results that benchmarks keep: made once, lost by nobody, and said to be old when the code is new."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import workbench as wb
from benchmarks import edit_quality, frontier, tune
from benchmarks.lib import code, kept
from benchmarks.lib.code import Code, code_of, hash_of, package_files, scripts
from benchmarks.lib.kept import Kept, same_settings
from benchmarks.lib.store import Line, Store
from tests.helpers.scripted import FRANCE, POOL, Script, run, scripted_edit, tiny
from workbench.editing.applied import applied
from workbench.evaluation.answering import Answering
from workbench.evaluation.evaluate import evaluate_views

ROOT = Path(__file__).parents[2]
TODAY = Code("c" * 40, False, "today")
EARLIER = Code("a" * 40, True, "earlier")
UNKNOWN = Code(None, None, None, filed_in="f" * 40)


def line(name: str, by: Code = TODAY, **result: Any) -> Line:
    return Line(name, {"seed": 1}, by, result)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "speed.jsonl.xz"


@pytest.fixture
def results(path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(kept, "code_of", lambda script: TODAY)
    return Kept(path, "speed.py")


def test_a_result_is_measured_once_for_each_settings(results: Kept, path: Path) -> None:
    made: list[int] = []

    def measure(seed: int) -> dict[str, Any]:
        made.append(seed)
        return {"value": seed, "pair": (1, 2)}

    for seed in (1, 1, 2, 2):
        got = results.measured("a", {"seed": seed, "steps": (3, 4)}, partial(measure, seed))
        assert got == {"value": seed, "pair": [1, 2]}, "what was measured just now is what will be read"
    assert made == [1, 2]
    assert results.find("a", {"seed": 1, "steps": [3, 4]}) is None, "a result of other settings was replaced"
    assert Store(path).lines()["a"].code == TODAY


def test_what_is_done_stays_when_a_measurement_is_stopped(results: Kept, path: Path) -> None:
    results.measured("a", {}, lambda: {"value": 1})

    def stopped() -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results.measured("b", {}, stopped)
    assert list(Store(path).lines()) == ["a"]
    assert results.measured("b", {}, lambda: {"value": 2}) == {"value": 2}
    assert list(Store(path).lines()) == ["a", "b"]


def test_a_result_counts_only_while_the_files_beside_it_are_there(results: Kept, tmp_path: Path) -> None:
    beside, made = tmp_path / "report.json", []

    def measure() -> dict[str, Any]:
        made.append(beside.write_text("{}"))
        return {}

    for _ in range(2):
        results.measured("a", {}, measure, [beside])
    assert len(made) == 1
    beside.unlink()
    results.measured("a", {}, measure, [beside])
    assert len(made) == 2


def test_a_recipe_on_file_may_lack_options_that_came_later() -> None:
    today = wb.Recipe().to_dict()
    older = {name: value for name, value in today.items() if name != "draw_back"}
    assert same_settings({"recipe": older}, {"recipe": today})
    assert not same_settings({"recipe": older}, {"recipe": today | {"draw_back": 0.5}})
    assert not same_settings({"recipe": older, "max_controls": 60}, {"recipe": today, "max_controls": 80})


def test_the_same_results_are_the_same_bytes(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "one.jsonl.xz"), Store(tmp_path / "other.jsonl.xz")
    for name in ("b", "a"):
        one.put(line(name, text="\ud800é", nothing=float("nan")))
    for name in ("a", "b", "c", "b"):
        other.put(line(name, text="\ud800é", nothing=float("nan")))
    other.remove(["c"])
    assert one.path.read_bytes() == other.path.read_bytes()
    with lzma.open(one.path, "rt") as lines:
        assert [json.loads(row)["name"] for row in lines] == ["a", "b"]
    assert one.lines()["a"].result["text"] == "\ud800é"


def test_processes_that_write_at_the_same_time_lose_nothing(path: Path) -> None:
    program = (
        "import sys; from benchmarks.lib.store import *; store = Store(sys.argv[1])\n"
        "for i in range(25): store.put(Line(f'{sys.argv[2]}-{i}', {}, Code(None, None, None), {'i': i}))"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(path), name], cwd=ROOT) for name in "abc"]
    assert [one.wait() for one in running] == [0, 0, 0]
    assert set(Store(path).lines()) == {f"{name}-{i}" for name in "abc" for i in range(25)}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_another_process_wrote_is_seen(path: Path) -> None:
    mine, other = Store(path), Store(path)
    mine.put(line("a"))
    other.put(line("b"))
    assert list(mine.lines()) == ["a", "b"]
    mine.put(line("c"))
    assert list(other.lines()) == ["a", "b", "c"]


@pytest.mark.parametrize("content", [b"{}\n", lzma.compress(b"{}\n"), lzma.compress(b"[1]\n"), lzma.compress(b"{")])
def test_a_damaged_file_is_named_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for use in (Store(path).lines, partial(Store(path).put, line("a"))):
        with pytest.raises(ValueError, match=r"speed\.jsonl\.xz is damaged.*git checkout"):
            use()
    assert path.read_bytes() == content


def test_a_cut_file_is_damaged(path: Path) -> None:
    Store(path).put(line("a", text="a text " * 20))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="damaged"):
        Store(path).lines()


def test_a_store_is_named_for_what_it_is() -> None:
    with pytest.raises(ValueError, match=r"NAME\.jsonl\.xz, got results/arms\.json"):
        Store("results/arms.json")


def test_results_of_other_code_are_used_and_said_once(results: Kept) -> None:
    for one in (line("a", EARLIER, v=1), line("b", UNKNOWN, v=2), line("c", TODAY, v=3)):
        results.store.put(one)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert results.find("c", {"seed": 1}) == {"v": 3}
        assert not said, "of the code of today there is nothing to say"
        for name, value in (("a", 1), ("b", 2), ("a", 1)):
            assert results.find(name, {"seed": 1}) == {"v": value}
    (warning,) = said
    words = str(warning.message)
    assert "2 of 3 results in" in words
    assert "1 before results had a hash of the code; at aaaaaaaaaaaa" in words
    assert f"remove {results.store.path} NAME" in words


def test_the_hash_is_of_what_decides(tmp_path: Path) -> None:
    def hashed(text: str, name: str = "a.py") -> str:
        file = tmp_path / name
        file.write_text(text)
        return hash_of([file])

    plain = 'def double(x):\n    return 2 * x\n\n\nNAME: str = "a"\n'
    prose = [
        '"""Numbers."""',
        "def double(x: int) -> float:  # both",
        '    """Twice."""',
        "    return (2 * x)",
        'NAME: "Name" = "a"',
        '"""A name."""',
    ]
    assert hashed("\n".join(prose)) == hashed(plain)
    for change in ("3 * x", "2.0 * x", "x * 2", "2 * x.real"):
        assert hashed(plain.replace("2 * x", change)) != hashed(plain), change
    assert hashed(plain.replace('"a"', '"b"')) != hashed(plain)
    assert hashed(plain, "b.py") != hashed(plain)
    assert hashed("[1]", "a.json") != hashed("[ 1]", "a.json")


def test_a_benchmark_is_decided_by_the_package_and_what_it_imports() -> None:
    names = {path.relative_to(wb.__path__[0]).as_posix() for path in package_files(code.NOT_DECIDING)}
    assert {"types/recipe.py", "editing/selector.py"} <= names
    assert any(name.startswith("facts/data/") for name in names)
    assert not [name for name in names if name.startswith(("widgets/", "plots/", "files/")) or name == "cli.py"]
    assert any("widgets" in path.parts for path in package_files(()))
    benchmarks = ROOT / "benchmarks"
    found = [path.relative_to(benchmarks).as_posix() for path in scripts(benchmarks / "arms.py")]
    assert found == ["arms.py", "edit_quality.py", "lib/rates.py"], "kept.py and store.py only keep"
    assert code_of(benchmarks / "arms.py").sha256 != code_of(benchmarks / "edit_quality.py").sha256


def test_the_commit_and_whether_the_tree_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "ROOT", tmp_path)
    script = tmp_path / "benchmarks" / "a.py"
    for file in (script, tmp_path / "workbench" / "b.py", tmp_path / "README.md"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
    assert code_of(script).to_dict().keys() == {"sha256"}, "no checkout"
    git = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True, text=True)
    git(["git", "init", "-q"])
    git(["git", "add", "."])
    git(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"])
    (tmp_path / "README.md").write_text("prose")
    (tmp_path / "benchmarks" / "results").mkdir()
    (tmp_path / "benchmarks" / "results" / "a.json").write_text("{}")
    assert code_of(script).commit == git(["git", "rev-parse", "HEAD"]).stdout.strip()
    assert code_of(script).dirty is False
    (tmp_path / "workbench" / "new.py").write_text("")
    assert code_of(script).dirty is True


def test_code_comes_back_as_it_was() -> None:
    for one in (TODAY, EARLIER, UNKNOWN):
        assert Code.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_results_are_listed_shown_removed_and_unpacked(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for one in (line("x/a", EARLIER, v=1), line("b", UNKNOWN, v=2)):
        Store(path).put(one)
    monkeypatch.setattr(kept, "FOLDER", tmp_path)
    kept.main(["list"])
    assert capsys.readouterr().out == "speed: 2 results\n"
    kept.main(["list", "speed"])
    assert capsys.readouterr().out == (
        "b  (code not recorded; on file since ffffffffffff)\nx/a  (aaaaaaaaaaaa, dirty)\n"
    )
    kept.main(["show", "speed", "b"])
    assert json.loads(capsys.readouterr().out) == line("b", UNKNOWN, v=2).to_dict()
    kept.main(["unpack", "speed", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out" / "x" / "a.json").read_text())["result"] == {"v": 1}
    with pytest.raises(SystemExit):
        kept.main(["remove", "speed", "b", "c"])
    assert "no result ['c']" in capsys.readouterr().err
    kept.main(["remove", str(path), "b"])
    assert list(Store(path).lines()) == ["x/a"]
    with pytest.raises(SystemExit, match=r"no file .*tume.*: speed\."):
        kept.main(["list", "tume"])
    with pytest.raises(KeyError, match=r"No result \['c'\]"):
        Store(path).remove(["c"])


def texts(rows: Any, group: str) -> set[tuple[str, str, str]]:
    return {(row["stage"], row["prompt"], row["text"]) for row in rows if row["group"] == group}


@pytest.mark.parametrize("benchmark", ["edit_quality", "tune"])
def test_results_keep_what_was_said_to_controls_and_neighbours(
    benchmark: str, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = {"settings": {"seconds_to_select": 1.0, "seconds_to_fit": 2.0}}
    monkeypatch.setattr(wb, "rewrite", lambda *_, **__: scripted_edit(provenance=timed))
    monkeypatch.setattr(wb, "evaluate", lambda *_, **__: run())
    if benchmark == "edit_quality":
        done = edit_quality.measure(tiny(), FRANCE, Answering(tiny()), 60, wb.Recipe())
        assert {row["label"] for row in edit_quality.heldout(done) if row["stage"] == "base"} == {"old", "other"}
        older = {"heldout": edit_quality.heldout(done), "fact": "france"}
        assert edit_quality.labels(older) == edit_quality.labels(done)
        assert len(edit_quality.labels(done)) == 4
    else:
        tuning = tune.Tuning(tiny(), POOL)
        monkeypatch.setattr(tune.Tuning, "_edit", lambda *_: scripted_edit(provenance=timed))
        monkeypatch.setattr(tune, "dev_controls", lambda *_: [])
        done = tuning.run(FRANCE, {})
    stages = ("base", "unlearn", "learn")
    for group, prompts in (
        ("control", ("Where is Big Ben?", "Where is Louvre?", "Where is Prado?")),
        ("neighbour", ("What is the capital of Spain?", "What is the capital of Japan?")),
    ):
        said = {(stage, prompt, script[prompt][i]) for prompt in prompts for i, stage in enumerate(stages)}
        assert texts(done["answers"], group) == said
    json.dumps(done)


def test_the_frontier_keeps_what_was_said_to_controls_neighbours_and_retained(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    script["What is the capital of Germany?"] = ("Berlin", "Berlin", "Rome")
    monkeypatch.setattr(frontier, "evaluate_views", partial(evaluate_views, pool=POOL))
    monkeypatch.setattr(wb, "load_facts", lambda: POOL)
    views = {stage: partial(applied, tiny(), scripted_edit(), stage) for stage in ("unlearn", "learn")}
    retained = [fact.id for fact in POOL if fact.role == "retain"]
    asked: Any = SimpleNamespace(max_controls=None, seed=0)
    done = frontier.rates_of_views(tiny(), [FRANCE], views, retained, asked, Answering(tiny()))
    assert ("learn", "Where is Prado?", "Madrid") in texts(done["answers"], "control")
    assert ("learn", "What is the capital of Spain?", "Rome") in texts(done["answers"], "neighbour")
    assert [(view, row["text"], row["label"]) for view, rows in done["held"].items() for row in rows] == [
        ("base", "Berlin", "old"),
        ("unlearn", "Berlin", "old"),
        ("learn", "Rome", "other"),
    ]
    assert [done["rates"][view]["held"]["value"] for view in views] == [1.0, 0.0]
