"""The Python that repeats what a circuit's graph shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.types import Circuit, Fact, FactSet, PathEffect
from workbench.widgets.shared.code import fact_call_in_a_line, pool_argument

_DEFAULTS: dict[str, Any] = {
    "method": "eap-ig",
    "steps": 5,
    "metric": "logit_diff",
    "corruption": "swap",
    "form": None,
    "partner": None,
}


def _written(value: Any) -> str:
    """An option as code; a metric that is a function is left to be filled in."""
    if isinstance(value, Fact):
        return fact_call_in_a_line(value)
    return "..." if callable(value) else repr(value)


def graph_code(
    traced: str, options: Mapping[str, Any], circuit: Circuit, path: PathEffect | None, pool: FactSet | None
) -> str:
    """Lines that score the edges, choose the selected ones, and patch the path that is shown.

    Args:
        traced: ``"fact"`` or ``"contrast"``.
        options: Of ``edges``. A metric that is a function is left to be filled in.
        circuit: The selected edges.
        path: The path that is shown.
        pool: Where swap partners come from.
    """
    given = {name: value for name, value in options.items() if value != _DEFAULTS[name]}
    words = {name: f", {name}={_written(value)}" for name, value in given.items()}
    more = pool_argument(pool) if traced == "fact" else ""
    lines = f"edges = wb.edges(model, {traced}{''.join(words.values())}{more})\n"
    if circuit:
        lines += f"circuit = wb.Circuit({str(circuit)!r})\n"
    if path is not None:
        plain = "".join(text for name, text in words.items() if name not in ("method", "steps"))
        lines += f"path = wb.path_patch(model, {traced}, {path.sender!r}, {path.receiver!r}{plain}{more})\n"
    return lines
