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

def refuse(*args, **options):
    raise AssertionError(f"a request to {args}")

socket.socket.connect = socket.getaddrinfo = refuse

import tempfile
from dataclasses import replace

import torch
import workbench as wb
from tests.helpers.tiny_facts import edit_of

model = wb.load_model()
fact = wb.load_facts()["france-capital"]
assert wb.ask(model, fact.question)
gates = {(23, "post"): torch.full((model.shape.d_mlp,), 0.9)}
edit = replace(edit_of(model, gates, fact=fact), modules=model.architecture.describe(gates))
assert edit.to_peft(tempfile.mkdtemp() + "/adapter")
assert wb.merge(model, edit, tempfile.mkdtemp() + "/merged")
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


def test_nothing_is_asked_of_the_hub() -> None:
    """Without the variable that keeps the hub libraries offline, and with every connection refused."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    root = Path(__file__).parents[2]  # where ``tests`` can be imported
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE], cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
