"""What the functions about circuits are measured on: facts or contrasts, one or several."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from workbench.facts.known import pool_or_bundled
from workbench.models.load import LoadedModel
from workbench.tracing.corruption import one_form
from workbench.tracing.self_check import require
from workbench.tracing.setup import SetupOptions
from workbench.types import Contrast, Fact
from workbench.types.contrast import Traced, as_traced


def prepared(
    model: LoadedModel, traced: Traced, function: str, **options: Any
) -> tuple[list[Fact] | list[Contrast], SetupOptions]:
    """Facts or contrasts as a list, with the options that all of them are set up with.

    Args:
        model: The model, which must have passed the checks that these runs rest on.
        traced: What is given.
        function: Who takes it, as messages begin.
        options: Those of ``SetupOptions``; ``pool`` may be None.

    Raises:
        TypeError: They are neither facts nor contrasts.
        ValueError: There is none, both kinds at once, or as ``SetupOptions`` and ``one_form``.
    """
    items = as_traced(traced, function)
    given = SetupOptions(**{**options, "pool": pool_or_bundled(options.get("pool"))}).of(items)
    facts = [item for item in items if isinstance(item, Fact)]
    if facts:
        if given.partner is not None and len(facts) > 1:
            raise ValueError(f"partner= is for one fact; {function} was given {len(facts)}.")
        given = replace(given, form=one_form(model, facts, given.form, given.token))
    require(model, "resume", *(("noise",) if given.corruption == "noise" else ()))
    return items, given
