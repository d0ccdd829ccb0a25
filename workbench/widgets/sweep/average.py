"""A picker on the average of a sweep: its cells lead to the facts that make them, and each fact to its own maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from workbench.files.paths import shown_path
from workbench.models.load import LoadedModel
from workbench.sweeps.results import SweepResults
from workbench.types import EffectMap, Fact, FactSet, Form
from workbench.types.torch_settings import own_torch_settings
from workbench.widgets.picker.behind import picker_maps
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.shared.code import needs_facts, own_pool, pool_argument, pool_code


@own_torch_settings()
def average_picker(
    model: LoadedModel, results: SweepResults, ids: Iterable[str] | None = None, *, pool: FactSet | None = None
) -> CircuitPicker:
    """Show the average of a sweep's maps in a picker.

    A click on a cell lists the facts that make it, by value, and a click on one of these shows the fact's own maps, as
    the sweep has kept them.

    Args:
        model: The model of the sweep.
        results: Of a sweep over facts whose results are maps (of ``causal_trace`` or ``attribute``), or dictionaries of
            maps.
        ids: Of these facts; None for all that have finished.
        pool: Where swap partners come from when maps are computed in it: that of the sweep; the bundled facts by
            default.

    Returns:
        The picker, which shows the average of each map; `open_fact` shows one fact's own, `show_average` goes back.

    Raises:
        ValueError: The sweep is of another model, has no finished fact, or its results have no map that a picker shows.
        KeyError: One of the ids has no result.

    Example:
        >>> results = wb.sweep(wb.attribute, facts[:3], out="maps", model=model, pool=facts, progress=False)
        >>> picker = wb.average_picker(model, results)
        >>> picker.maps["heads"].n, picker.maps["heads"].interval is None
        (3, False)
        >>> picker.open_fact("italy-capital")
        >>> picker.fact.id, picker.maps["heads"].n
        ('italy-capital', 1)
        >>> picker.show_average()
        >>> len(picker.fact)
        3
    """
    if results.model["fingerprint"] != model.fingerprint:
        raise ValueError(
            f"The sweep in {results.path} is of the model {results.model.get('name', '')!r} with the fingerprint "
            f"{results.model['fingerprint'][:12]}, and {model.name!r} has {model.fingerprint[:12]}: give its own model."
        )
    facts, maps = averaged(results, ids)
    picker = CircuitPicker(model, facts, form=_form(maps), pool=pool, compute=False)
    show_average(picker, results, facts, maps, pool, all_of_them=ids is None)
    made = picker.measure, picker.form
    picker.on_progress(lambda: _forget(picker) if (picker.measure, picker.form) != made else None)
    return picker


def show_average(
    picker: CircuitPicker,
    results: SweepResults,
    facts: list[Fact],
    maps: Mapping[str, EffectMap],
    pool: FactSet | None,
    *,
    all_of_them: bool = False,
) -> None:
    """Show an average in a picker that ``average_picker`` has made, and let its code make it.

    Args:
        picker: The picker.
        results: Of the sweep.
        facts, maps: As ``averaged`` gives them.
        pool: As in ``average_picker``.
        all_of_them: Whether the code is to take all that have finished, instead of these facts.
    """
    chosen = "" if all_of_them else f", {[fact.id for fact in facts]!r}"
    define = pool_code(pool) if own_pool(pool) else ""
    folder = shown_path(results.path)
    load = "facts = wb.load_facts()\n" * needs_facts((), pool)
    picker.show(facts, maps, form=_form(maps))
    picker.own_maps = lambda id: picker_maps(results[id])
    picker.given_code = (
        f"{load}{define}results = wb.load_sweep({folder!r})\n"
        f"picker = wb.average_picker(model, results{chosen}{pool_argument(pool)})\n"
    )


def _form(maps: Mapping[str, EffectMap]) -> Form | None:
    first = next(iter(maps.values()))
    return first.prompts[0].form if first.prompts else None


def _forget(picker: CircuitPicker) -> None:
    """Maps of another measure are computed, and are no average of the sweep."""
    if picker.given_code:
        picker.given_code, picker.own_maps = "", None


def averaged(results: SweepResults, ids: Iterable[str] | None = None) -> tuple[list[Fact], Mapping[str, EffectMap]]:
    """The facts of an average, in the order of its values, and its maps by a picker's names.

    Raises:
        ValueError, KeyError: As ``average_picker``.
    """
    there = results.facts
    wanted = list(there.ids) if ids is None else list(ids)
    for id in wanted:
        if id not in there:
            results[id]  # says why it has none
            raise ValueError(f"The item {id!r} of the sweep in {results.path} is no fact, and a picker shows facts.")
    if not wanted:
        raise ValueError(f"The sweep in {results.path} has no finished fact to average.")
    maps = picker_maps(results.mean(wanted))
    if not maps:
        raise ValueError(
            f"The results of {results.function} have no map that a picker shows: those of causal_trace and attribute "
            "have. For others use results.mean() and results.to_frame()."
        )
    return [there[id] for id in wanted], maps
