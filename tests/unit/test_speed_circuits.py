"""The benchmark of edges beside auto-circuit, without its environment: names, differences, and what is said where the
environment cannot be made."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks import speed_circuits
from benchmarks.lib.auto_circuit import PACKAGE, VERSIONS, apart, ours_of, started
from benchmarks.lib.peer_environment import EnvironmentNotMade, environment
from workbench.types import EdgeMap

THEIRS = {
    "Resid Start->A0.0.Q": 1.0,
    "Resid Start->A0.0.K": -2.0,
    "Resid Start->A0.0.V": 3.0,
    "Resid Start->MLP 0": -4.0,
    "A0.0->MLP 0": 5.0,
    "Resid Start->Resid End": 6.0,
    "A0.0->Resid End": 7.0,
    "MLP 0->Resid End": -8.0,
}
"""All edges of a layer with one head."""
NAN = float("nan")


def ours(values: list[list[float]]) -> EdgeMap:
    return EdgeMap(
        values=torch.tensor(values),
        senders=("embedding", "L0H0", "L0MLP"),
        receivers=("L0Q0", "L0K0", "L0V0", "L0MLP", "logits"),
        metric="logit_diff",
        method="eap",
        clean=1.0,
        corrupted=0.0,
    )


SAME = [[-1.0, NAN, NAN], [2.0, NAN, NAN], [-3.0, NAN, NAN], [4.0, -5.0, NAN], [-6.0, -7.0, 8.0]]


@pytest.mark.parametrize(
    ("edge", "expected"),
    [
        ("Resid Start->A0.0.Q", ("embedding", "L0Q0")),
        ("A3.11->A12.7.K", ("L3H11", "L12K7")),
        ("MLP 10->A11.2.V", ("L10MLP", "L11V2")),
        ("A3.4->MLP 3", ("L3H4", "L3MLP")),
        ("MLP 0->Resid End", ("L0MLP", "logits")),
    ],
)
def test_names_of_edges(edge: str, expected: tuple[str, str]) -> None:
    assert ours_of(edge) == expected


@pytest.mark.parametrize(
    "edge", ["A0.0", "A0.0.Q->MLP 1", "A0.0->A1.0", "Resid End->MLP 0", "A0.0->Resid Start", "x->y"]
)
def test_other_names_are_refused(edge: str) -> None:
    with pytest.raises(ValueError, match=re.escape(edge) if "->" not in edge else "is none of auto-circuit's names"):
        ours_of(edge)


def test_scores_with_the_other_sign_are_the_same() -> None:
    found = apart(ours(SAME), THEIRS)
    assert (found.absolute, found.relative) == (0.0, 0.0)


def test_the_largest_difference_of_all_edges_is_found() -> None:
    found = apart(ours(SAME), THEIRS | {"A0.0->MLP 0": 5.5, "MLP 0->Resid End": -8.25})
    assert found.absolute == 0.5
    assert found.relative == 0.5 / 8


def test_scores_of_other_edges_are_not_compared() -> None:
    fewer = {edge: score for edge, score in THEIRS.items() if edge != "A0.0->MLP 0"}
    with pytest.raises(ValueError, match="scores of 7 edges, we of 8; 7 are the same"):
        apart(ours(SAME), fewer)
    with pytest.raises(ValueError, match=re.escape("'A0.1->MLP 0' is not in our graph of 8 edges")):
        apart(ours(SAME), THEIRS | {"A0.1->MLP 0": 1.0})
    with pytest.raises(ValueError, match="scores of 9 edges, we of 8; 8 are the same"):
        apart(ours(SAME), THEIRS | {"MLP 0->A0.0.Q": 1.0})


def base(folder: Path, status: int) -> Path:
    """A Python that makes an environment whose pip ends with a status."""
    made = folder / f"python{status}"
    made.write_text(
        "#!/bin/sh\n"
        'mkdir -p "$3/bin"\n'
        f'printf \'#!/bin/sh\\necho "$@" >&2\\nexit {status}\\n\' > "$3/bin/python"\n'
        'chmod +x "$3/bin/python"\n'
    )
    made.chmod(0o755)
    return made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "environments"


NEEDS_SH = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are shell scripts")


@NEEDS_SH
def test_an_environment_is_made_once_for_its_versions(tmp_path: Path, cache: Path) -> None:
    versions = tmp_path / "versions.txt"
    versions.write_text("peer==1.0\n")
    python = environment("peer==1.0", versions, part="peer", base=str(base(tmp_path, 0)))
    assert python.is_file() and python.parent.parent.parent == cache
    assert environment("peer==1.0", versions, part="peer", base="/no/python") == python
    versions.write_text("peer==1.0\nother==2\n")
    assert environment("peer==1.0", versions, part="peer", base=str(base(tmp_path, 0))) != python


@NEEDS_SH
def test_half_an_environment_is_made_again(tmp_path: Path, cache: Path) -> None:
    python = environment("peer==1.0", VERSIONS, part="peer", base=str(base(tmp_path, 0)))
    (python.parent.parent / "made.txt").unlink()
    (python.parent / "left").touch()
    assert environment("peer==1.0", VERSIONS, part="peer", base=str(base(tmp_path, 0))) == python
    assert not (python.parent / "left").exists()


@NEEDS_SH
def test_an_environment_that_pip_refuses_is_said_and_not_kept(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(EnvironmentNotMade) as caught:
        environment("peer==1.0", VERSIONS, part="peer", base=str(base(tmp_path, 3)))
    said = str(caught.value)
    assert "with peer==1.0, which the part 'peer' needs" in said and str(cache) in said
    assert "ended with 3: -m pip install --quiet peer==1.0 --constraint" in said
    assert "package registry" in said and "3 GB" in said and "WORKBENCH_CACHE" in said and "--only" in said
    assert list(cache.iterdir()) == []


def test_no_python_to_make_it(cache: Path) -> None:
    with pytest.raises(EnvironmentNotMade, match="/no/python"):
        environment("peer==1.0", VERSIONS, part="peer", base="/no/python")


def test_the_benchmark_says_it_before_anything_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(package: str, versions: Path, *, part: str) -> Path:
        raise EnvironmentNotMade(f"{package} {part} {versions.name}")

    monkeypatch.setattr(speed_circuits, "environment", refuse)
    monkeypatch.setitem(speed_circuits.PARTS, "bundled", lambda *_: pytest.fail("was timed"))
    with pytest.raises(SystemExit, match=re.escape("auto-circuit==1.0.1 auto-circuit auto_circuit.txt")):
        speed_circuits.main(["--out", str(tmp_path / "out.json")])
    assert not (tmp_path / "out.json").exists()


def test_it_is_for_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed_circuits.main(["--only", "auto-circuit", "--device", "cuda"])
    assert "use --device cpu, or --only bundled lens" in capsys.readouterr().err


def test_the_versions_pin_what_is_installed() -> None:
    lines = VERSIONS.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert PACKAGE in pins
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    ours = (VERSIONS.parents[2] / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (torch_pin,) = (pin for pin in pins if pin.startswith("torch=="))
    assert torch_pin in ours, "both sides run the same torch"


def test_a_process_that_ends_says_why() -> None:
    tiny = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_layer=1, n_head=1, n_embd=4, n_positions=8))
    setting = {"clean": [1, 2], "corrupted": [1, 3], "answer": 4, "wrong": 5}
    with (
        pytest.raises(RuntimeError, match=r"(?s)process ended with 1:.*No module named 'auto_circuit'"),
        started(Path(sys.executable), tiny, setting),
    ):
        pytest.fail("auto-circuit is not in this environment")


def test_a_part_is_judged_by_its_goals_and_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found: dict[str, float | str] = {
        "licence": "none named",
        "16 tokens: times faster than auto-circuit": 4.9,
        "64 tokens: times faster than auto-circuit": 5.0,
    }
    monkeypatch.setitem(speed_circuits.PARTS, "bundled", lambda *_: found)
    speed_circuits.main(["--only", "bundled", "--out", str(tmp_path / "out.json")])
    written: dict[str, Any] = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert len(written["code"]["sha256"]) == 64
    rows = {row["what"]: (row["value"], row["goal"], row["met"]) for row in written["tables"]["Circuits"]}
    assert rows == {
        "licence": ("none named", "", ""),
        "16 tokens: times faster than auto-circuit": (4.9, "at least 5", "no"),
        "64 tokens: times faster than auto-circuit": (5.0, "at least 5", "yes"),
    }
