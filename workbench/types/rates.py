"""From answer rows to rates, by the table of ``workbench.types.rate_rules``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from workbench.types.rate_rules import RATES, RateRule
from workbench.types.rate_values import Texts, answered_at
from workbench.types.report import AnswerRow, Rate, SampleRow, TextRow

__all__ = ["RATES", "RateRule", "rates_of"]


def rates_of(
    rows: Sequence[AnswerRow],
    stages: Sequence[str],
    names_target: Callable[[str], bool],
    *,
    texts: Sequence[TextRow] = (),
    collateral: bool = False,
    closed: Sequence[str] = (),
    soft: Collection[str] | None = None,
    retained: Collection[str] = (),
    samples: Sequence[SampleRow] = (),
    probabilities: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Rate]]:
    """All rates by stage.

    Args:
        rows: Rows of every stage.
        stages: ``"base"`` first.
        names_target: Whether a text names an edited fact's new answer.
        texts: Sentences and long stretches of ordinary text at every stage.
        collateral: Also the rates of what follows from the edited facts.
        closed: Relations on which the edit's method closed, whose rates are apart.
        soft: Ids of the controls that the base itself loses; None where it was not looked at.
        retained: Relations of which the edit held facts in place.
        samples: Samples of every stage.
        probabilities: As in ``EvalReport``.
        seed: Of the bootstrap.
    """
    long = any(row.source != "bundled" for row in texts)
    out: dict[str, dict[str, Rate]] = {}
    for stage in stages:
        settings = {"closed": closed, "soft": soft, "retained": retained}
        refusals = {fact: of["refusal"] for fact, of in (probabilities or {}).get(stage, {}).items()}
        answered = answered_at(rows, stage, names_target, samples=samples, refusals=refusals, **settings)
        out[stage] = {}
        for rule in RATES.values():
            asked = (collateral or not rule.collateral) and (long or not rule.long_texts)
            if not asked or not (rule.if_there is None or rule.if_there(answered)):
                continue
            if rule.values is not None:
                out[stage][rule.name] = rule.of(rule.values(answered), seed)
            elif rule.of_texts is not None:
                now, before = (_texts_at(at, texts, rule.long_texts) for at in (stage, "base"))
                out[stage][rule.name] = rule.of_texts(now, before, seed)
            if stage == "base" and rule.fixed_at_base:
                out[stage][rule.name] = out[stage][rule.name].defined()
    return out


def _texts_at(stage: str, texts: Sequence[TextRow], long: bool) -> Texts:
    here = (r for r in texts if r.stage == stage and (r.source != "bundled") == long)
    return {i: [r.nll] * r.n_tokens for i, r in enumerate(here)}
