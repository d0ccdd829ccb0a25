"""What an edit did, by greedy free generation: the new answer, what is left of the old one, and what else changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from workbench.editing.applied import applied, check_base, chosen_stages
from workbench.editing.retain import has_retained
from workbench.evaluation.answer_slots import answers_at, rows_at
from workbench.evaluation.answering import Answering, Ask, Reply, check_answering
from workbench.evaluation.ordinary_text import text_rows
from workbench.evaluation.questions import Question, collateral_questions, questions_of
from workbench.facts.known import known_facts, load_facts, pool_or_bundled
from workbench.language.answers import matches
from workbench.language.generation import MAX_NEW_TOKENS
from workbench.language.prompts import traced_prompt
from workbench.language.replies import thoughts_not_counted
from workbench.language.scoring import continuation_probabilities
from workbench.models.load import LoadedModel
from workbench.models.provenance import provenance
from workbench.types import AnswerRow, Edit, EvalReport, Fact, FactSet, TextRow
from workbench.types.fact import as_facts
from workbench.types.rates import rates_of
from workbench.types.torch_settings import own_torch_settings

KL_ROWS = 48


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
    seed: int = 0,
    progress: bool = True,
) -> EvalReport:
    """Ask the base and every stage of an edit, and classify what they say.

    Edited facts are asked their training questions, their held-out questions and their clozes. Neighbours (known facts
    of the same relation) and controls are asked their question, and judged by their own answer and by what the edit
    taught. Facts whose answers the edit used (``Edit.used_ids``: those held in place, and those that chose what may
    move) are never evaluated; ``left_out`` says how many.

    Args:
        model: The edit's base model; it is not changed.
        facts: The facts to evaluate; None for the edit's own.
        edit: The edit; None measures the base alone.
        stages: Stages of the edit to evaluate, besides the base; None for all.
        controls: Facts that should stay as they are; None for all facts of the pool's test split that the model knows.
        pool: Where controls and neighbours come from; the bundled facts by default.
        max_controls: Draw at most so many controls, and at most so many neighbours (by ``seed``, not by hand); None for
            all.
        answering: Asks the models; give one of your own to ask in batches of another size, or to follow or stop it.
        max_new_tokens: Longest answer; by default that of ``answering``, or 24.
        collateral: Measure too what follows from the edited facts and the language itself: the subject asked for by the
            old answer and by the target, two-hop questions through the pool, and the likelihood of ordinary text.
        seed: Of the draw and the bootstrap.
        progress: Show a progress bar.

    Returns:
        Every generated text with its class, and rates with n and 95% intervals that take whole facts (``Rate``). What
        could not be measured is listed in ``missing``; so are replies that end inside a thought, which count nowhere.

    Raises:
        ValueError: An edit or ``answering`` of another base, an unknown stage, no facts, or facts or controls whose
            answers the edit used.

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
    if model.applied:
        raise ValueError("evaluate compares an edit with its base: pass the base model (model.base) and edit=.")
    if edit is not None:
        check_base(model, edit)
    if max_new_tokens is not None:
        if answering is not None and answering.max_new_tokens != max_new_tokens:
            raise ValueError(
                f"max_new_tokens={max_new_tokens!r}, but answering= gives answers of at most "
                f"{answering.max_new_tokens} tokens. Leave one of them out."
            )
        answering = answering or Answering(model, max_new_tokens=max_new_tokens)
    edited = _facts(facts, edit)
    used = sorted({f.id for f in edited} & set(edit.used_ids if edit else ()))
    if used:
        raise ValueError(
            f"facts= holds facts whose answers the edit used (Edit.used_ids): {used}. They are never evaluated; leave "
            "them out."
        )
    views = {}
    if edit is not None:
        views = {stage: partial(applied, model, edit, stage) for stage in chosen_stages(edit, stages)}
    return evaluate_views(
        model,
        edited,
        views,
        used=edit.used_ids if edit else (),
        taught=edit.facts if edit else (),
        controls=controls,
        pool=pool,
        max_controls=max_controls,
        answering=answering,
        collateral=collateral,
        seed=seed,
        progress=progress,
        edit_id=edit.id if edit else None,
    )


def evaluate_views(
    model: LoadedModel,
    edited: Sequence[Fact],
    views: Mapping[str, Callable[[], AbstractContextManager[LoadedModel]]],
    *,
    used: Iterable[str],
    used_facts: Iterable[Fact] = (),
    taught: Iterable[Fact] = (),
    controls: FactSet | Sequence[Fact] | None = None,
    pool: FactSet | None = None,
    max_controls: int | None = None,
    answering: Answering | None = None,
    collateral: bool = False,
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
        controls, pool, max_controls, answering, collateral, seed, progress: As in ``evaluate``.
        edit_id: Of the edit that the views are of, for the report.
        settings: For the report's provenance.
    """
    pool = pool_or_bundled(pool)
    taught = list({f.id: f for f in (*edited, *taught)}.values())
    used_facts = list(used_facts)
    away = {*used, *(f.id for f in (*taught, *used_facts))}
    missing: list[str] = []
    touched = [*taught, *used_facts, *(f for f in pool if f.id in away)]
    unseen = sorted(away - {f.id for f in touched})
    from_bundled = [load_facts()[id] for id in unseen if id in load_facts()]
    if from_bundled and not has_retained(pool):
        touched += from_bundled
        unseen = sorted({*unseen} - {f.id for f in from_bundled})
        missing.append(f"retained facts of {pool.name!r}: it has none, so bundled ones were held in place")
    if unseen:
        missing.append(
            f"facts that the edit used and the pool does not hold ({', '.join(unseen)}): the same facts under other "
            "ids may be among controls and neighbours"
        )
    free = pool.without(touched)
    if controls is not None:
        _check_controls(controls, away, touched)
    answering = answering or Answering(model)
    check_answering(answering, model)
    length = answering.max_new_tokens
    control_facts = _controls(model, controls, free, max_controls, seed, progress, missing, length)
    neighbour_facts = known_neighbours(model, free, edited, max_controls, seed, progress, missing, length)
    questions = questions_of(edited, neighbour_facts, control_facts, missing)
    if collateral:
        questions += collateral_questions(edited, pool, missing)
    stages = ("base", *views)
    rows: list[AnswerRow] = []
    texts: list[TextRow] = []

    from tqdm.auto import tqdm

    with tqdm(total=len(stages) * len({q.ask for q in questions}), desc="Evaluating", disable=not progress) as bar:
        for stage in stages:
            bar.set_postfix(stage=stage)
            with nullcontext(model) if stage == "base" else views[stage]() as view:
                rows += _rows(answering, view, questions, stage, taught, bar)
                texts += text_rows(view, stage) if collateral else []
        bar.update(bar.total - bar.n)
    if len(rows) < len(stages) * len(questions):
        missing.append(
            thoughts_not_counted(model, len(stages) * len(questions) - len(rows), len(stages) * len(questions))
        )

    def names_target(text: str) -> bool:
        return any(matches(text, f.targets, case_sensitive=f.case_sensitive) for f in edited)

    return EvalReport(
        rows=tuple(rows),
        rates=rates_of(rows, stages, names_target, texts=texts, collateral=collateral, seed=seed),
        texts=tuple(texts),
        missing=tuple(missing),
        left_out=len(pool.without(taught)) - len(free),
        facts=tuple(f.id for f in edited),
        stages=stages,
        edit_id=edit_id,
        base_fingerprint=model.fingerprint,
        provenance=provenance(
            model, **settings, pool=pool.name, max_controls=max_controls, collateral=collateral, seed=seed
        ),
    )


def _facts(facts: Fact | FactSet | Sequence[Fact] | None, edit: Edit | None) -> list[Fact]:
    if facts is None:
        if edit is None:
            raise ValueError("evaluate needs facts, an edit, or both; got neither.")
        return list(edit.facts)
    asked = as_facts(facts)
    if not asked:
        raise ValueError("evaluate needs at least one fact, got none.")
    return asked


def _check_controls(controls: Iterable[Fact], away: set[str], touched: Sequence[Fact]) -> None:
    """Raise a ValueError for controls that were edited or whose answers were used, under another id too."""
    clash = sorted(f.id for f in controls if f.id in away or any(f.overlaps(other) for other in touched))
    if clash:
        raise ValueError(
            f"controls= overlaps the edited facts or those whose answers the edit used (Edit.used_ids): {clash}. "
            "Controls must have had no part in the edit; leave them out."
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
    else:
        chosen = list(known_facts(model, free.filter(split="test"), max_new_tokens=max_new_tokens, progress=progress))
        if not chosen:
            missing.append(f"controls: {free.name!r} has no fact of the test split that the model knows")
    return _draw(chosen, most, seed)


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
    return _draw(list(neighbours.values()), most, seed)


def _draw(facts: list[Fact], most: int | None, seed: int) -> list[Fact]:
    if most is None or len(facts) <= most:
        return facts
    keep = set(random.Random(seed).sample(range(len(facts)), most))
    return [f for i, f in enumerate(facts) if i in keep]


def _rows(
    answering: Answering,
    model: LoadedModel,
    questions: Sequence[Question],
    stage: str,
    taught: Sequence[Fact],
    bar: Any,
) -> list[AnswerRow]:
    asks = list(dict.fromkeys(q.ask for q in questions))
    replies: dict[Ask, Reply] = dict(zip(asks, answering.replies(model, asks, bar), strict=True))
    known: dict[Ask, Reply] = replies
    if stage != "base":  # in the cache: the base was asked first
        known = dict(zip(asks, answering.replies(answering.base, asks), strict=True))
    rows = [
        AnswerRow(
            fact_id=q.fact.id,
            relation=q.fact.relation,
            group=q.group,
            stage=stage,
            form=q.ask.form,
            prompt=q.ask.prompt,
            text=replies[q.ask].text,
            label=replies[q.ask].label(q.judge, unsaid(taught, known[q.ask].text) if q.untouched else None),
            nll=replies[q.ask].nll,
        )
        for q in questions
        if replies[q.ask].counted is not None and known[q.ask].counted is not None
    ]
    if model.edited:
        spread = [i for i, row in enumerate(rows) if row.group in ("control", "neighbour")]
        measured = spread[:: max(1, -(-len(spread) // KL_ROWS))]  # evenly over the relations
        kl = answering.kl(model, [Ask("chat", rows[i].prompt) for i in measured])
        for i, value in zip(measured, kl, strict=True):
            rows[i] = replace(rows[i], kl=value)
    return rows


def unsaid(taught: Sequence[Fact], text: str) -> list[Fact]:
    """Of what an edit taught, the facts whose target the base itself does not name in a text about something else: the
    Colosseum is in Rome, Italy, before any edit and after."""
    return [f for f in taught if not matches(text, f.targets, case_sensitive=f.case_sensitive)]


@own_torch_settings()
def answer_probabilities(
    model: LoadedModel, fact: Fact, *, edit: Edit | None = None, strength: float = 1.0
) -> Mapping[str, Mapping[str, float]]:
    """Measure the probabilities of the old answer, the target and the refusal, before and after each stage of an edit.

    They are full-sequence probabilities of the tokens that may stand at the answer's place, after the base model's own
    answer up to there ("The capital of France is"). The refusal is the one that the edit teaches: the sentence broken
    off ("... I am not sure."), or the fact's own (``Recipe.answers``).

    Args:
        model: The base model, or one that carries an edit.
        fact: A fact that the base answers in chat form (else its cloze is used).
        edit: The edit; None for the base alone.
        strength: Of the edit's gates.

    Returns:
        By stage (``"before"`` first), then by answer, as ``workbench.plots.probabilities_figure`` takes it.

    Raises:
        ValueError: The base model says the answer in neither form.

    Example:
        >>> probabilities = wb.answer_probabilities(model, fact, edit=edit)
        >>> list(probabilities)
        ['before', 'after unlearn', 'after learn']
        >>> {answer: round(p, 1) for answer, p in probabilities["after learn"].items()}
        {'old: Paris': 0.0, 'new: Rome': 1.0, 'refusal: I am not sure.': 0.0}
    """
    prompt = traced_prompt(model, fact)
    taught = edit or (model.applied[-1].edit if model.applied else None)
    texts = answers_at(prompt, fact, taught.recipe.answer_style if taught else "own")
    names = [f"{name}: {text.strip()}" for name, text in texts.items()]
    rows = rows_at(model.base, prompt, texts.values())

    def measure(view: LoadedModel) -> dict[str, float]:
        return dict(zip(names, continuation_probabilities(view, rows), strict=True))

    stages = {"before": measure(model)}
    for stage in edit.stage_names if edit else ():
        assert edit is not None
        with applied(model, edit, stage, strength) as changed:
            stages[f"after {stage}"] = measure(changed)
    return stages
