"""What an edit did, by greedy free generation: the new answer, what is left of the old one, and what else changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, get_args

from workbench.editing.applied import applied, check_under, chosen_stages
from workbench.evaluation.answer_rows import answer_rows, names_target
from workbench.evaluation.answering import Answering, check_answering
from workbench.evaluation.chosen import (
    asked_facts,
    check_controls,
    draw,
    evaluated_pool,
    relations_of,
    sealed_controls,
    touched_facts,
)
from workbench.evaluation.extras import Extras, sample_rows
from workbench.evaluation.firmness import flips_of
from workbench.evaluation.floor import FLOOR, permuted_of_equal_kl
from workbench.evaluation.long_text import CONTEXT, long_text_rows, stretches_of
from workbench.evaluation.ordinary_text import text_rows
from workbench.evaluation.probabilities import probabilities_at
from workbench.evaluation.questions import collateral_questions, questions_of
from workbench.evaluation.related import related_questions
from workbench.facts.known import known_facts
from workbench.facts.sealed_wordings import Wordings, asked_sealed, with_sealed_heldout
from workbench.language.generation import MAX_NEW_TOKENS
from workbench.language.replies import thoughts_not_counted
from workbench.models.load import LoadedModel
from workbench.models.provenance import provenance
from workbench.types import AnswerRow, Edit, EvalReport, Fact, FactSet, TextRow
from workbench.types.fact import as_facts
from workbench.types.plain import check_flag, check_seed, is_whole
from workbench.types.rates import rates_of
from workbench.types.report import SampleRow
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def evaluate(
    model: LoadedModel,
    facts: Fact | FactSet | Sequence[Fact] | None = None,
    *,
    edit: Edit | None = None,
    stages: Sequence[str] | None = None,
    controls: FactSet | Sequence[Fact] | None = None,
    pool: FactSet | None = None,
    max_controls: int | None = None,
    answering: Answering | None = None,
    max_new_tokens: int | None = None,
    collateral: bool = False,
    firm: bool | None = None,
    wordings: Wordings = "own",
    samples: int = 0,
    text_tokens: int | None = None,
    prose: Sequence[str] | None = None,
    text_context: int = CONTEXT,
    floor: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> EvalReport:
    """Ask the base and every stage of an edit, and classify what they say.

    Edited facts are asked their training questions, their held-out questions and their clozes. Neighbours (known facts
    of the same relation) and controls are asked their question; known facts about the same subject, and known facts
    with the same old answer, are asked held-out questions. All these are judged by their own answer and by what the
    edit taught. Facts whose answers the edit used (``Edit.used_ids``: those held in place, and those that chose what
    may move) are never evaluated; ``left_out`` says how many.

    Args:
        model: The edit's base model; it is not changed. For an edit that was made on an edited model that one, with the
            edits that were on it: it is what the report calls the base.
        facts: The facts to evaluate; None for the edit's own.
        edit: The edit; None measures the base alone.
        stages: Stages of the edit to evaluate, besides the base; None for all.
        controls: Facts that should stay as they are; None for all facts of the pool's test split that the model knows.
        pool: Where controls and neighbours come from; the bundled facts by default.
        max_controls: Draw at most so many controls, and at most so many neighbours (by ``seed``, not by hand); None for
            all. Of the same subject and the same answer at most 12 facts each are asked for an edited fact.
        answering: Asks the models; give one of your own to ask in batches of another size, or to follow or stop it.
        max_new_tokens: Longest answer; by default that of ``answering``, or 24.
        collateral: Measure too what follows from the edited facts and the language itself: the subject asked for by the
            old answer and by the target, two-hop questions through the pool, and the likelihood of ordinary text.
        firm: Whether the untouched base is asked the controls again, one at a time and in bfloat16, to count apart
            those that it loses by itself (``EvalReport.flips``). None: where all of them are on record.
        wordings: ``"sealed"`` asks everything that is not trained in wordings that no default was tuned on and no
            retained fact has (``workbench.facts.sealed_wordings``): of bundled and sealed relations; facts of others
            are asked their held-out questions in sealed frames, or their own question where they have none. Known
            sealed facts of other relations are controls too.
        samples: So many samples at temperature 1 of each held-out question, at every stage, for the rate ``leak``.
        text_tokens: So many tokens of ordinary text in long stretches, for ``long_text_nll`` and its change: the base's
            own generations (written once a model), or ``prose``.
        prose: Documents to be read instead, all of them without ``text_tokens``.
        text_context: Tokens of a stretch.
        floor: Also evaluate the edit's last stage with its gates or input columns permuted, at equal KL on controls and
            neighbours, as the stage ``"floor"``: what any change of this size costs.
        seed: Of the draws, the samples, the permutation and the bootstrap; the base's own text is the same for all.
        progress: Show a progress bar.

    Returns:
        Every generated text with its class, and rates with n and 95% intervals that take whole facts (``Rate``). What
        could not be measured is listed in ``missing``; so are replies that end inside a thought, which count nowhere.

    Raises:
        ValueError: An edit or ``answering`` of another base, an unknown stage or wordings, no facts, facts that came
            twice, facts or controls whose answers the edit used, ``samples`` or ``max_controls`` that are no whole
            number from 0, ``text_tokens`` or ``text_context`` below 1, or a floor without an edit.

    Source: the protocol deviates from arXiv 2508.07075 on purpose: free generation, questions that were never trained
    on, forgetting relative to the base's own answers, and gibberish never counted as forgotten.

    Example:
        >>> report = wb.evaluate(model, edit=edit, pool=facts)
        >>> for name in ("new", "old", "control"):
        ...     print(name, report.rate(name))
        new 1.00 [0.34, 1.00] (n=2)
        old 0.00 [0.00, 0.66] (n=2)
        control 0.50 [0.09, 0.91] (n=2)
    """
    if edit is not None:
        check_under(model, edit, "evaluate")
    elif model.applied:
        raise ValueError("evaluate compares an edit with its base: pass the base model (model.base) and edit=.")
    if max_new_tokens is not None:
        if answering is not None and answering.max_new_tokens != max_new_tokens:
            raise ValueError(
                f"max_new_tokens={max_new_tokens!r}, but answering= gives answers of at most "
                f"{answering.max_new_tokens} tokens. Leave one of them out."
            )
        answering = answering or Answering(model, max_new_tokens=max_new_tokens)
    if wordings not in get_args(Wordings):
        raise ValueError(f"wordings must be one of {get_args(Wordings)}, got {wordings!r}.")
    for name, value in (("samples", samples), ("max_controls", 0 if max_controls is None else max_controls)):
        if not (is_whole(value) and value >= 0):
            raise ValueError(f"{name} must be a whole number, 0 or more, got {value!r}.")
    check_seed(seed)
    one: object = controls
    if isinstance(one, Fact):
        raise TypeError(f"controls= is a list of facts, got one ({one.id!r}); write [fact].")
    check_flag("collateral", collateral)
    check_flag("floor", floor)
    if firm is not None:
        check_flag("firm", firm)
    if floor and edit is None:
        raise ValueError("floor=True permutes an edit, and there is none; pass edit=.")
    edited = asked_facts(facts, edit)
    used = sorted({f.id for f in edited} & set(edit.used_ids if edit else ()))
    if used:
        raise ValueError(
            f"facts= holds facts whose answers the edit used (Edit.used_ids): {used}. They are never evaluated; leave "
            "them out."
        )
    views = {}
    if edit is not None:
        views = {stage: partial(applied, model, edit, stage, stack=True) for stage in chosen_stages(edit, stages)}
    permuted = None
    if floor and edit is not None:
        asking = answering = answering or Answering(model)
        permuted = partial(permuted_of_equal_kl, model, edit, stage=list(views)[-1], answering=asking, seed=seed)
    return evaluate_views(
        model,
        edited,
        views,
        used=edit.used_ids if edit else (),
        closed=edit.closed_relations if edit else (),
        taught=edit.facts if edit else (),
        retained=relations_of(edit.retain_ids, pool) if edit else (),
        wordings=wordings,
        extras=Extras(
            samples=samples,
            stretches=stretches_of(model.base, text_tokens, prose, context=text_context),
            floor=permuted,
            probabilities=None
            if edit is None or not any(stage.startswith("unlearn") for stage in edit.stage_names)
            else partial(probabilities_at, model, edited, edit.recipe.answer_style),
        ),
        controls=controls,
        pool=pool,
        max_controls=max_controls,
        answering=answering,
        collateral=collateral,
        firm=firm,
        seed=seed,
        progress=progress,
        edit_id=edit.id if edit else None,
        samples=samples,
        text_tokens=text_tokens,
        text_context=text_context,
    )


def evaluate_views(
    model: LoadedModel,
    edited: Sequence[Fact],
    views: Mapping[str, Callable[[], AbstractContextManager[LoadedModel]]],
    *,
    used: Iterable[str],
    used_facts: Iterable[Fact] = (),
    taught: Iterable[Fact] = (),
    closed: Sequence[str] = (),
    retained: Iterable[str] = (),
    wordings: Wordings = "own",
    extras: Extras = Extras(),  # noqa: B008 - frozen
    controls: FactSet | Sequence[Fact] | None = None,
    pool: FactSet | None = None,
    max_controls: int | None = None,
    answering: Answering | None = None,
    collateral: bool = False,
    firm: bool | None = None,
    seed: int = 0,
    progress: bool = True,
    edit_id: str | None = None,
    **settings: Any,
) -> EvalReport:
    """What ``evaluate`` does, for any changed views of a model, by stage name.

    Args:
        model: The base model.
        edited: The facts to evaluate.
        views: Each opens a changed view of the model for the length of a ``with`` block.
        used: Ids of the facts whose answers made the views, which are neither controls nor neighbours.
        used_facts: The same as facts, which the pool may know under other ids. Of those that are in neither, other
            wordings cannot be told; ``missing`` says so.
        taught: The facts that the views were taught, besides those that are evaluated.
        closed: Relations on which the views' method closed (``Edit.closed_relations``).
        retained: Relations of which the views held facts in place.
        extras: What else is measured.
        wordings, controls, pool, max_controls, answering, collateral, firm, seed, progress: As in ``evaluate``.
        edit_id: Of the edit that the views are of, for the report.
        settings: For the report's provenance.
    """
    pool = evaluated_pool(pool, edited, wordings)
    taught = list({f.id: f for f in (*edited, *taught)}.values())
    missing: list[str] = []
    touched, away = touched_facts(pool, taught, used, used_facts, missing)
    free = pool.without(touched)
    if controls is not None:
        controls = as_facts(controls)  # an iterator is read once
        check_controls(controls, away, touched)
    answering = answering or Answering(model)
    check_answering(answering, model)
    length = answering.max_new_tokens
    with_sealed = wordings == "sealed" and controls is None
    most = None if with_sealed else max_controls  # those of both splits are drawn together
    control_facts = _controls(model, controls, free, most, seed, progress, missing, length)
    known = partial(known_facts, model, max_new_tokens=length, progress=progress)
    neighbour_facts = known_neighbours(model, free, edited, max_controls, seed, progress, missing, length)
    reword: Callable[[Fact], Fact] = partial(asked_sealed, seed=seed) if wordings == "sealed" else lambda fact: fact
    if with_sealed:
        control_facts = draw(control_facts + list(known(sealed_controls(free, edited))), max_controls, seed)
    asked = [with_sealed_heldout(f) for f in edited] if wordings == "sealed" else edited
    questions = questions_of(asked, map(reword, neighbour_facts), map(reword, control_facts), missing)
    questions += related_questions(
        known, free, edited, missing, closed=closed, most=max_controls, reword=reword, seed=seed
    )
    if collateral:
        questions += collateral_questions(edited, pool.core, missing)
    permuted = extras.floor_of(questions, missing)
    if permuted is not None:
        views = {FLOOR: partial(applied, model, permuted.edit, stack=True), **views}
        settings["floor"] = {"strength": permuted.strength, "kl": permuted.kl, "wanted": permuted.wanted}
    stages = ("base", *views)
    rows: list[AnswerRow] = []
    texts: list[TextRow] = []
    samples: list[SampleRow] = []
    probabilities: dict[str, dict[str, dict[str, float]]] = {}

    from tqdm.auto import tqdm

    with tqdm(total=len(stages) * len({q.ask for q in questions}), desc="Evaluating", disable=not progress) as bar:
        for stage in stages:
            bar.set_postfix(stage=stage)
            with nullcontext(model) if stage == "base" else views[stage]() as view:
                rows += answer_rows(answering, view, questions, stage, taught, bar)
                texts += text_rows(view, stage) if collateral else []
                texts += long_text_rows(view, stage, extras.stretches) if extras.stretches else []
                probabilities |= {stage: extras.probabilities(view)} if extras.probabilities else {}
                samples += sample_rows(answering, view, questions, stage, extras.samples, seed)
        bar.update(bar.total - bar.n)
    if len(rows) < len(stages) * len(questions):
        missing.append(
            thoughts_not_counted(model, len(stages) * len(questions) - len(rows), len(stages) * len(questions))
        )

    flips = flips_of(answering, [reword(f) for f in control_facts], measure=firm)
    soft = None if flips is None else {flip.fact_id for flip in flips}

    return EvalReport(
        rows=tuple(rows),
        rates=rates_of(
            rows,
            stages,
            partial(names_target, edited=edited),
            texts=texts,
            collateral=collateral,
            closed=closed,
            soft=soft,
            retained=tuple(retained),
            samples=samples,
            probabilities=probabilities,
            seed=seed,
        ),
        texts=tuple(texts),
        samples=tuple(samples),
        probabilities=probabilities,
        retained_relations=tuple(retained),
        missing=tuple(missing),
        closed_relations=tuple(closed),
        flips=flips,
        left_out=len(pool.core.without(taught)) - len(free.core),
        facts=tuple(f.id for f in edited),
        stages=stages,
        edit_id=edit_id,
        base_fingerprint=model.fingerprint,
        provenance=provenance(
            model,
            **settings,
            taught=[fact.id for fact in taught],
            answers={fact.id: [fact.answer, fact.target] for fact in taught},
            asked={q.fact.id: q.fact.answer for q in questions if q.untouched},
            pool=pool.name,
            max_new_tokens=length,
            firm=firm,
            max_controls=max_controls,
            collateral=collateral,
            wordings=wordings,
            seed=seed,
        ),
    )


def _controls(
    model: LoadedModel,
    controls: FactSet | Sequence[Fact] | None,
    free: FactSet,
    most: int | None,
    seed: int,
    progress: bool,
    missing: list[str],
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[Fact]:
    """Those given, or the known test facts of what is free of training."""
    if controls is not None:
        chosen = list(controls)
        if not chosen:
            missing.append("controls: controls= is empty")
    else:
        chosen = list(
            known_facts(model, free.core.filter(split="test"), max_new_tokens=max_new_tokens, progress=progress)
        )
        if not chosen:
            missing.append(f"controls: {free.name!r} has no fact of the test split that the model knows")
    if chosen and most == 0:
        missing.append("controls and neighbours: max_controls=0")
    return draw(chosen, most, seed)


def known_neighbours(
    model: LoadedModel,
    free: FactSet,
    edited: Sequence[Fact],
    most: int | None,
    seed: int,
    progress: bool,
    missing: list[str],
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[Fact]:
    """The known neighbours of the edited facts in what is free of training, but for those kept for it."""
    neighbours: dict[str, Fact] = {}
    targets = {t.casefold() for f in edited for t in f.targets}  # what any of them teaches, not only its own
    for fact in edited:
        near = free.neighbours(fact)
        near = near.filter(lambda f: f.role != "retain" and targets.isdisjoint(a.casefold() for a in f.answers))
        known = known_facts(model, near, max_new_tokens=max_new_tokens, progress=progress) if len(near) else near
        if not len(known):
            why = "it has no relation" if not fact.relation else f"none known in {free.name!r} besides retained ones"
            missing.append(f"neighbours of {fact.id}: {why}")
        neighbours.update((f.id, f) for f in known)
    return draw(list(neighbours.values()), most, seed)
