"""The code of a function: the checksum of its source, that of what runs, and the names that it reads."""

from __future__ import annotations

import dis
import inspect
import sys
from types import CodeType
from typing import Any

from workbench.files.checked_json import sha256
from workbench.sweeps.descriptions import CODE


def code_state(named: Any) -> dict[str, Any]:
    """The checksum of a source, and that of the code that runs. The second stands for a source that there is none of;
    what has neither (a built-in function) has None."""
    code = _code_of(named)
    ran = {} if code is None else {f"{CODE}{sys.version_info.major}.{sys.version_info.minor}": code}
    own = getattr(named, "__code__", named) if hasattr(named, "__wrapped__") else named  # not that of what it wraps
    try:
        return {"source": sha256(inspect.getsource(own).encode()), **ran}
    except (OSError, TypeError):
        return {"source": None if inspect.isclass(named) else code, **ran}


def _code_of(named: Any) -> str | None:
    """The checksum of the code of a function, or of the methods of a class; None of what has none."""
    if inspect.isclass(named):
        methods = {name: _code_of(getattr(v, "__func__", getattr(v, "fget", v))) for name, v in vars(named).items()}
        return sha256(repr(sorted((n, code) for n, code in methods.items() if code is not None)).encode())
    code = getattr(named, "__code__", None)
    return None if code is None else _code_digest(code)


def _code_digest(code: CodeType) -> str:
    """The checksum of code, the same in every session: of what it does, with its names and constants."""
    constants = [
        _code_digest(one)
        if inspect.iscode(one)
        else f"frozenset {sorted(map(repr, one))}"  # which has another order in each session
        if isinstance(one, frozenset)
        else repr(one)
        for one in code.co_consts
    ]
    return sha256(code.co_code + repr((code.co_names, constants)).encode())


def names_read(code: CodeType) -> set[str]:
    """The names that code reads from its module, and the code in it does: comprehensions, functions in functions."""
    own = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*(names_read(part) for part in code.co_consts if inspect.iscode(part)))
