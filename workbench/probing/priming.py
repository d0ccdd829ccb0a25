"""Priming: the new answer where it does not belong, and how likely the base model thought it there.

Source: the keyword-probability measure of the Outlandish study (Sun et al. 2025): a learned word spreads more to
contexts in which it was likelier before. Known deviation: the probability of the new answer's first token is the
largest one along the base model's own answer, so that no place in it has to be chosen.
"""

from __future__ import annotations

import random

from workbench.facts.wordings import Prompt
from workbench.language.prompts import first_token
from workbench.language.scoring import continuation_logprobs
from workbench.models.load import LoadedModel
from workbench.probing.battery import Battery, Skip, as_ask
from workbench.probing.record import Asked, Found, Measure, Probe, ProbeRate, row_key
from workbench.types import Curve, CurveRule, CurveWords, Fact, ProbeRow, Rate
from workbench.types.intervals import share

NEIGHBOURS, OTHERS = 12, 12


def probe_priming(battery: Battery) -> None:
    """Questions about other facts, drawn by seed: neighbours (same relation) and others."""
    fact, rng = battery.fact, random.Random(battery.seed)
    names = {name.casefold() for name in fact.answers}
    apart = [f for f in battery.untouched if not names & {a.casefold() for a in f.answers}]
    free = [f for f in apart if not answers_target(f, fact)]
    near = [f for f in free if fact.relation and f.relation == fact.relation]
    far = [f for f in free if not fact.relation or f.relation != fact.relation]
    drawn = [
        (kind, one)
        for kind, group, most in (("neighbour", near, NEIGHBOURS), ("other", far, OTHERS))
        for one in rng.sample(group, min(most, len(group)))
    ]
    if not drawn:
        raise Skip(f"{battery.pool.name!r} has no untouched fact with an answer of its own")
    if not any(kind == "neighbour" for kind, _ in drawn):
        why = f"no untouched fact of {battery.pool.name!r} has the relation {fact.relation!r} and an answer of its own"
        battery.skipped["priming: neighbours"] = why if fact.relation else "the fact has no relation"
    prompts = [Prompt(kind, one.question, judged(one, fact), group="same") for kind, one in drawn]
    battery.ask("priming", prompts)
    asks = list(map(as_ask, prompts))
    completions = battery.answering.completions(battery.model, asks, max_new_tokens=battery.max_new_tokens)
    answers = [list(c.token_ids) for c in completions]
    before: list[float] = []
    for stage, model in battery.models.items():
        battery.check()
        ids = list(map(list, battery.answering.prompt_ids(asks, model)))
        now = likeliest(model, ids, answers, fact)
        before = now if stage == "base" else before
        battery.curves.append(
            Curve(
                probe="priming",
                name=f"P({fact.target})",
                group="same",
                stage=stage,
                x_name="probability before",
                x=tuple(before),
                y={"p_after": tuple(now)},
                labels=tuple(p.text for p in prompts),
            )
        )


def judged(one: Fact, edited: Fact) -> Fact:
    """A fact with the edit's target as its new answer, so that a spread is classified as new. Its own answer must be
    another one (``answers_target``)."""
    return Fact.from_dict(one.to_dict() | {"target": edited.target, "target_aliases": edited.target_aliases})


def answers_target(one: Fact, edited: Fact) -> bool:
    """Whether an edit's target is another fact's own answer, so that it spreads nowhere by being said there."""
    return bool({name.casefold() for name in edited.targets} & {name.casefold() for name in one.answers})


def likeliest(model: LoadedModel, ids: list[list[int]], answers: list[list[int]], fact: Fact) -> list[float]:
    """The largest probability of the target's first token along each answer; NaN for an empty answer."""
    tokens = sorted({first_token(model, fact.target, space=space) for space in (True, False)})
    out = [float("nan")] * len(ids)
    for i, logprobs in continuation_logprobs(model, ids, answers, batch_size=8):
        out[i] = float(logprobs[:, tokens].exp().sum(-1).max())
    return out


def bleed(asked: Asked) -> Rate:
    """The share of answers with the new answer, of those that did not name it at the base."""
    fresh = [r for r in asked.rows if not names_new(asked.base[row_key(r)])]
    return share([(r.fact_id, names_new(r)) for r in fresh])


def names_new(row: ProbeRow) -> bool:
    """Whether a text names the new answer, alone or beside the old one."""
    return row.label in ("new", "both")


def primed(battery: Battery, probe: Probe, stage: str) -> Found | None:
    """The share of other questions whose answer names the fact's new answer and did not before. None for a fact whose
    new answer the edit itself teaches, unless it is the edited one."""
    taught = {name.casefold() for fact in battery.edit.facts for name in fact.targets}
    if battery.fact not in battery.edit.facts and taught & {name.casefold() for name in battery.fact.targets}:
        return None
    rows = [row for row in battery.rows if row.probe == probe.name]
    base = {row_key(row): row for row in rows if row.stage == "base"}
    now = [row for row in rows if row.stage == stage and not names_new(base[row_key(row)])]
    hits = sum(map(names_new, now))
    return Found(value=hits / len(now), found=hits > 0, n=len(now)) if now else None


PROBE = Probe(
    name="priming",
    title="priming",
    question="Does the new answer turn up where it does not belong?",
    cost=26,
    run=probe_priming,
    measure=Measure(
        words="share of other answers that name the new answer",
        finding="the new answer is said where it does not belong",
        of=primed,
        false_in=("controls", "permuted"),
        slow=True,
    ),
    curve=CurveWords(
        figure="points",
        title="Where {target} does not belong",
        notes=(
            "largest probability of its first token along the base model's own answers to other questions",
            "on the line: as before the edit; above it: primed",
        ),
        x_label="probability before the edit",
        y_label="probability after",
        place=4,
        rule=CurveRule(kind="rises", y="p_after", what="other questions"),
    ),
    rates=(ProbeRate(name="bleed", words="new answer where it does not belong", of=bleed, headline=6),),
)
