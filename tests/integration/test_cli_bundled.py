"""The command line and the hub libraries, with the bundled model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from workbench import cli

pytestmark = pytest.mark.model

OFFLINE = """
import socket

asked = []

def refuse(*args, **options):
    asked.append(args)
    raise OSError(f"a request to {args}")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import workbench as wb
from tests.helpers.tiny_facts import edit_of
from workbench import demo

model = wb.load_model()
fact = wb.load_facts()["france-capital"]
assert wb.ask(model, fact.question)
gates = {(23, "post"): torch.full((model.shape.d_mlp,), 0.9)}
edit = replace(edit_of(model, gates, fact=fact), modules=model.architecture.describe(gates))
assert edit.to_peft(tempfile.mkdtemp() + "/adapter")
assert wb.merge(model, edit, tempfile.mkdtemp() + "/merged")

app = wb.Workbench(model)
assert app.chooser.fact == fact, "the first that is shown"
app.chooser.job.wait(600)
app.picker.compute("heads", "mlps").wait(600)

def short(model, fact, *, recipe, **options):
    quick = wb.Recipe(steps=1, retain_size=4, retain_batch_size=2, batch_size=2, draw_back=None)
    return wb.rewrite(model, fact, "L23MLP", recipe=quick, **options)

demo.rewrite = short
out = Path(tempfile.mkdtemp())
demo.run_demo(fact.id, out, max_controls=2)
assert (out / "report.html").stat().st_size > 1_000_000
assert not asked, asked  # what a thread asks for is seen here too
"""


def test_the_list_of_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["facts", "--relation", "country-capital"]) == 0
    everything = capsys.readouterr().out
    assert cli.main(["facts", "--relation", "country-capital", "--known"]) == 0
    known = capsys.readouterr().out
    assert re.search(r"^france-capital +yes +yes +dev +\w+ +Paris -> Rome$", known, re.MULTILINE)
    assert 10 < known.count("\n") < everything.count("\n")
    assert everything.splitlines()[-1] == known.splitlines()[-1]
    assert cli.main(["facts", "--relation", "nonsense"]) == 1


def test_nothing_needs_a_network() -> None:
    """Model, edit, Workbench and demo without the variable that keeps the hub libraries offline, and with every
    connection refused."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    root = Path(__file__).parents[2]  # where ``tests`` can be imported
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE], cwd=root, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr
