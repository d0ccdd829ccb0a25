"""The battery: every probe of an edit, with the reasons for what was left out."""

from __future__ import annotations

import random
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

from workbench.editing.applied import check_under, chosen_stages
from workbench.facts.known import known_facts, pool_or_bundled
from workbench.models.load import LoadedModel
from workbench.models.provenance import provenance
from workbench.probing.battery import Battery, CallbackError, Skip, Stopped
from workbench.probing.lens_choice import check_asked
from workbench.probing.null import Null
from workbench.probing.rates import rates_of_probes, words_of_probes
from workbench.probing.table import PROBES
from workbench.types import Edit, Fact, FactSet, LensAsked, NullSize, ProbeNull, ProbeReport, ProbeRow
from workbench.types.cancelling import CancelFlag
from workbench.types.refused import RefusedValue
from workbench.types.torch_settings import own_torch_settings

CONTROL_CANDIDATES = 24


@own_torch_settings()
def probe(
    model: LoadedModel,
    edit: Edit,
    *,
    fact: Fact | str | None = None,
    probes: Sequence[str] | str | None = None,
    stages: Sequence[str] | None = None,
    control: Fact | None = None,
    pool: FactSet | None = None,
    max_new_tokens: int = 24,
    seed: int = 0,
    null: NullSize | Literal["quick"] | bool | None = None,
    lens: LensAsked = "auto",
    on_row: Callable[[ProbeRow], Any] | None = None,
    on_probe: Callable[[str], Any] | None = None,
    cancel: CancelFlag | None = None,
    progress: bool = True,
) -> ProbeReport:
    """Search an edited model for what is left of the old fact, beside a fact that was never edited.

    Ten probes: ``lens``, ``adversarial``, ``steps``, ``interconnected``, ``context``, ``keywords``, ``relearning``,
    ``requantise``, ``strength``, ``priming``. Texts are greedy free generations judged by ``classify``; a prompt on
    which the base model itself does not give the old answer is uninformative (``ProbeRow.informative``).

    Args:
        model: The edit's base model; it is not changed. For an edit that was made on an edited model that one, with the
            edits that were on it.
        edit: The edit.
        fact: Which of the edit's facts, or its id; the first by default.
        probes: Names of the probes to run, in this order; None for all.
        stages: Stages of the edit to probe, besides the base; None for all.
        control: A fact that was neither edited nor retained, asked the same prompts. None: a neighbour that the model
            knows, drawn by seed, or else any fact of the pool that it knows.
        pool: Where the control, two-hop paths, examples and neighbours come from; the bundled facts by default.
        max_new_tokens: Longest answer; ``steps`` takes twice as many.
        seed: Of every draw and of the bootstrap.
        null: Measure at the last stage what the same probes find where there is nothing to find: other known facts, the
            edit's delta permuted at equal KL, and invented subjects (``NullSize``). Findings then name the percentile
            of the edited fact's value, and each probe's false-positive rate. ``"quick"``: few prompts, without the slow
            probes; True: all that was asked, on two dozen facts and deltas. None: findings say that there is no null.
        lens: Through which lens the probe ``lens`` reads layers: ``"logit"``, ``"tuned"`` (``wb.tuned_lens`` of the
            base), or ``"auto"``, the one that is closer to the base's own prediction on held-out text; the report says
            which, and both divergences (``ProbeReport.lens_choice``). ``"auto"`` and ``"tuned"`` fit the tuned lens
            once a model, which takes minutes of a large one, with a progress bar; ``"auto"`` reads the logit lens, and
            says so, where no tuned one can be fitted.
        on_row: Called with each ``ProbeRow`` when it is there. Returning False cancels.
        on_probe: Called with the name of each probe before it runs.
        cancel: When set, the battery ends after the batch at hand.
        progress: Show a progress bar.

    Returns:
        The report. What a probe lacked, or the error in which it ended (which warns), is in ``skipped``. A battery that
        was cancelled, or interrupted with Ctrl-C (which warns), returns the rows that were finished, and says in
        ``partial`` where it ended.

    Raises:
        ValueError: An edit of another base, a model that carries other edits than were under it, a fact that the edit
            does not hold, an unknown probe, stage or lens (the message lists what there is), or a control that was
            edited or retained.

    Source: see each probe's module in ``workbench.probing``.

    Example:
        >>> probes = wb.probe(model, edit, probes=("lens", "strength"), pool=facts)
        >>> probes.lens().verdict
        'pretends to forget: the old answer leads at 3 of the layers in to L1, then the new answer from L2 on'
        >>> curve = probes.curve("strength")
        >>> curve.x, [round(p, 1) for p in curve.y["p_old"]]
        ((0.0, 0.25, 0.5, 0.75, 1.0), [1.0, 1.0, 0.7, 0.0, 0.0])
    """
    check_under(model, edit, "probe")
    names = _names(probes)
    at = chosen_stages(edit, stages)
    chosen = _fact(edit, fact)
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens!r}.")
    size = NullSize.of(null)
    check_asked(lens)
    given, pool = pool, pool_or_bundled(pool)
    trained = [*edit.facts, *(f for f in pool if f.id in edit.used_ids)]
    if control is not None and (control.id in edit.used_ids or any(control.overlaps(f) for f in trained)):
        raise ValueError(
            f"control={control.id!r} was edited, or the edit used its answer (Edit.used_ids), so it is no control. "
            "Choose another fact."
        )
    from tqdm.auto import tqdm

    with tqdm(desc="Probing", unit=" prompts", disable=not progress) as bar:
        options: dict[str, Any] = {"on_row": on_row, "cancel": cancel, "bar": bar}
        options |= {"lens_asked": lens, "lens_pool": given}
        battery = Battery(model, edit, chosen, control, pool, at, max_new_tokens, seed, **options)
        try:
            done, partial = _run(battery, names, on_probe)
            beside, partial = _null(battery, done, size, partial)
        except CallbackError as error:
            raise error.__cause__ or error from None
    return ProbeReport(
        fact=chosen,
        control=battery.control,
        stages=("base", *at),
        rows=tuple(battery.rows),
        curves=tuple(battery.curves),
        lenses=tuple(battery.lenses),
        lens_choice=battery.lens[0] if battery.lens is not None else None,
        rates=rates_of_probes(battery.rows, ("base", *at), seed=seed),
        null=beside,
        probes=tuple(done),
        words=words_of_probes(names),
        skipped=dict(battery.skipped),
        partial=partial,
        asked=names,
        max_new_tokens=max_new_tokens,
        seed=seed,
        edit_id=edit.id,
        base_fingerprint=model.fingerprint,
        provenance=provenance(model, pool=pool.name),
    )


def _run(battery: Battery, names: Sequence[str], on_probe: Callable[[str], Any] | None) -> tuple[list[str], str]:
    """Run the probes. Returns those that finished, and why the battery ended early (empty if it did not)."""
    done: list[str] = []
    now = "the choice of a control"
    try:
        battery.check()
        if battery.control is None:
            battery.control = choose_control(battery)
            if battery.control is None:
                battery.skipped["control"] = f"{battery.pool.name!r} has no untouched fact that the model knows"
        elif not len(known_facts(battery.model, FactSet([battery.control]), progress=False)):
            battery.skipped["control"] = f"the base does not answer {battery.control.id!r}, so it shows nothing"
        held = {f.id for f in battery.pool}
        outside = [id for id in battery.edit.used_ids if id not in held]
        if outside:
            battery.skipped["facts that the edit used, outside the pool"] = (
                f"{len(outside)} of {len(battery.edit.used_ids)} are not in {battery.pool.name!r}, so the same facts "
                f"under other ids may have been asked as if untouched (first: {', '.join(outside[:3])})"
            )
        for fact in battery.facts:
            if not fact.heldout:
                why = "the fact has none, so generic wordings of its question were asked"
                battery.lacks(fact, "held-out questions", why)
        for name in names:
            now = name
            battery.check()
            if on_probe is not None:
                on_probe(name)
            if battery.bar is not None:
                battery.bar.set_postfix(probe=name)
            try:
                PROBES[name].run(battery)
                done.append(name)
            except Skip as why:
                battery.skipped[name] = str(why)
            except (Stopped, CallbackError):
                raise
            except Exception as error:  # out of memory in one probe must not cost the rows of the others
                battery.skipped[name] = f"it failed with {type(error).__name__}: {error}"
                warnings.warn(f"The probe {name!r} failed; the others go on.\n{traceback.format_exc()}", stacklevel=3)
    except Stopped as why:
        return done, f"{why} during {now}"
    except KeyboardInterrupt:
        warnings.warn(
            f"Interrupted during {now}; the report holds the {len(battery.rows)} finished rows.", stacklevel=3
        )
        return done, f"interrupted during {now}"
    return done, ""


def _null(battery: Battery, done: Sequence[str], size: NullSize | None, partial: str) -> tuple[ProbeNull | None, str]:
    """The null of the probes that finished, or None and why the battery ended early."""
    if size is None:
        return None, partial
    if partial:
        battery.skipped["null"] = "the battery ended before it"
        return None, partial
    if battery.bar is not None:
        battery.bar.set_postfix(probe="null")
    try:
        return Null(battery, done, size).measured(), ""
    except Stopped as why:
        ended = f"{why} during the null"
    except KeyboardInterrupt:
        ended = "interrupted during the null"
        warnings.warn(f"Interrupted during the null; the report holds the {len(battery.rows)} rows.", stacklevel=4)
    battery.skipped["null"] = "it was not finished"
    return None, ended


def choose_control(battery: Battery) -> Fact | None:
    """A known fact that was never touched: a neighbour if there is one, drawn by seed; else any of the pool's.

    At most ``CONTROL_CANDIDATES`` are asked, so that an unmeasured model is not asked all of the pool.
    """
    fact, rng = battery.fact, random.Random(battery.seed)
    names = {name.casefold() for name in (*fact.answers, *fact.targets)}
    free = battery.untouched.filter(
        lambda f: f.role != "retain" and not names & {a.casefold() for a in f.answers} and f.subject != fact.subject
    )
    near = list(free.neighbours(fact))
    far = [f for f in free if f not in near]
    for group in (near, far):
        drawn = rng.sample(group, min(len(group), CONTROL_CANDIDATES))
        known = list(known_facts(battery.model, FactSet(drawn), progress=False)) if drawn else []
        if known:
            return known[0]
    return None


def _names(probes: Sequence[str] | str | None) -> tuple[str, ...]:
    given = tuple(PROBES) if probes is None else (probes,) if isinstance(probes, str) else tuple(probes)
    unknown = [p for p in given if p not in PROBES]
    if unknown or not given:
        message = f"probes must be some of {list(PROBES)}, got {list(given)}; unknown: {unknown}."
        raise RefusedValue(message, name="probes", value=unknown, allowed=list(PROBES))
    return tuple(dict.fromkeys(given))


def _fact(edit: Edit, fact: Fact | str | None) -> Fact:
    if fact is None:
        return edit.facts[0]
    wanted = fact if isinstance(fact, str) else fact.id
    for edited in edit.facts:
        if edited.id == wanted:
            return edited
    raise ValueError(f"The edit does not hold the fact {wanted!r}; it holds {[f.id for f in edit.facts]}.")
