"""The pages on adding a family, a method, a probe and a panel: their code, put where they say, does what they say.

Each page's files are made modules for the length of a test, its row is put into its table, and the tests that the page
has run.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import workbench as wb
from tests.helpers import families as tiny_families
from tests.helpers import tiny
from tests.helpers.doc_pages import DOCS, Block, blocks_of
from tests.helpers.tiny_facts import capitals, edit_of, knowing, some_gates
from workbench.editing.methods.table import METHODS, Method
from workbench.models import families
from workbench.models.family import Family
from workbench.probing.table import PROBES
from workbench.widgets import app, app_tabs
from workbench.widgets.app_tabs import PanelTab


def files_of(page: str) -> dict[str, Block]:
    """The blocks of a page that are files, by name."""
    return {block.file: block for block in blocks_of(DOCS / "development" / page) if block.file}


def row_of(page: str, name: str) -> str:
    """The indented row of a table on a page that begins with a call of this name, without the comma after it."""
    text = (DOCS / "development" / page).read_text(encoding="utf-8")
    found = re.search(rf"^    {name}\((?:.*\),|\n(?:        .*\n)*    \),)$", text, re.MULTILINE)
    assert found is not None, f"{page} has no row with {name}(...)"
    return found[0].strip().removesuffix(",")


def as_module(block: Block, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A file of a page as a module, importable by its name until the test ends."""
    name = block.file.removesuffix(".py").replace("/", ".")
    package = name.rpartition(".")[0]
    if package not in sys.modules and not (DOCS.parent / package.replace(".", "/")).is_dir():
        folder = ModuleType(package)
        folder.__path__ = []
        monkeypatch.setitem(sys.modules, package, folder)
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile("\n" * (block.line - 1) + block.text, str(DOCS / block.page), "exec"), vars(module))
    return module


def run_tests(module: ModuleType, tmp_path: Path) -> list[str]:
    """Run a module's tests; returns their names."""
    run: list[str] = []
    for name, test in vars(module).items():
        if name.startswith("test_"):
            wanted = set(inspect.signature(test).parameters)
            assert wanted <= {"tmp_path"}, wanted
            test(**({"tmp_path": tmp_path} if wanted else {}))
            run.append(name)
    return run


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def test_a_probe_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of("add-a-probe.md")
    probe = as_module(files["workbench/probing/typos.py"], monkeypatch).PROBE
    monkeypatch.setitem(PROBES, probe.name, probe)
    assert len(run_tests(as_module(files["tests/unit/test_typos.py"], monkeypatch), tmp_path)) == 2


def test_a_method_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of("add-a-method.md")
    names = vars(as_module(files["workbench/editing/methods/constant.py"], monkeypatch))
    row = eval(row_of("add-a-method.md", "Method"), {**names, "Method": Method})
    monkeypatch.setitem(METHODS, row.recipe.method, row)
    assert len(run_tests(as_module(files["tests/unit/test_constant.py"], monkeypatch), tmp_path)) == 3


def test_a_panel_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of("add-a-panel.md")
    panel = as_module(files["workbench/widgets/ask/panel.py"], monkeypatch)
    assert len(run_tests(as_module(files["tests/unit/test_ask_panel.py"], monkeypatch), tmp_path)) == 3
    row = eval(row_of("add-a-panel.md", "PanelTab"), {"PanelTab": PanelTab, "AskPanel": panel.AskPanel})
    for module in (app, app_tabs):
        monkeypatch.setattr(module, "TABS", (*app_tabs.TABS, row))
    model = knowing(tiny.tiny_llama(tied=False, bias=True))
    bench = wb.Workbench(model, capitals())
    bench.tab = "asking"
    assert bench.tab == "asking" and "asking" not in bench.panels
    edit = edit_of(model, some_gates(model, (1, "z")), fact=capitals()[0])
    session = wb.Session(fact=edit.facts[0], fingerprint=model.fingerprint, model_name=model.name, edit=edit)
    bench.open_session(session.save(tmp_path / "session"))
    assert bench.panels["asking"].run().wait(60)["base"] == "Paris"
    assert "# A question\nwith wb.applied(model, edit) as edited:" in bench.code


def test_a_family_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of("add-a-family.md")
    hf = eval(files["tiny"].text, {**vars(tiny_families)}).hf()
    with pytest.raises(ValueError, match="of no supported decoder family"):
        tiny.loaded(hf)
    row = eval(files["row"].text, {"Family": Family})
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, row))
    model, facts = knowing(hf), capitals()
    trace = wb.causal_trace(model, facts[0], form="cloze", samples=2, progress=False)
    assert trace.corrupted is not None and trace.clean - trace.corrupted > 0.1
    assert abs(float(trace.values[0, trace.subject[0]]) - (trace.clean - trace.corrupted)) < 1e-4  # all comes back
    heads = wb.attribute(model, facts[0], "head", form="cloze", method="patching", pool=facts, progress=False)
    assert tuple(heads.values.shape) == (3, 6)
    edit = edit_of(model, some_gates(model, (0, "post"), (1, "z"), (2, "k"), (1, "up")), fact=facts[0])
    ids = torch.tensor([model.token_ids("The capital of France is")])
    with wb.applied(model, edit) as edited, torch.no_grad():
        wanted = edited.hf(ids).logits
        assert not torch.allclose(wanted, model.hf(ids).logits, atol=1e-2)
        merged = wb.load_model(wb.merge(model, edit, tmp_path / "merged"))
        assert torch.allclose(merged.hf(ids).logits, wanted, atol=1e-4)
