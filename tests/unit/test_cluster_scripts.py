"""The scripts of the page on clusters parse, keep to new processes, and call what is there with what it takes."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import workbench as wb

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "a-thousand-facts.md"
SCRIPTS = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))


def test_there_is_one_for_each_kind_of_cluster() -> None:
    assert set(SCRIPTS) >= {"sweep_capitals.py", "sweep_on_dask.py", "sweep_on_slurm.py", "sweep_on_kubernetes.py"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_calls_what_is_there(name: str) -> None:
    tree = ast.parse(SCRIPTS[name], name)
    assert any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)
    every = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [node for node in every if re.fullmatch(r"wb\.\w+", ast.unparse(node.func))]
    assert any(ast.unparse(call.func) == "wb.sweep" for call in calls)
    for call in calls:
        function = getattr(wb, ast.unparse(call.func).removeprefix("wb."))
        given = {word.arg: None for word in call.keywords if word.arg is not None}
        inspect.signature(function).bind(*call.args, **given)
        if function is wb.sweep:  # its options are the function's
            swept = getattr(wb, ast.unparse(call.args[0]).removeprefix("wb."))
            own = inspect.signature(wb.sweep).parameters
            inspect.signature(swept).bind(None, None, **{k: v for k, v in given.items() if k not in own})
