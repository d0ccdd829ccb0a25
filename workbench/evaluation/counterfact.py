"""CounterFact's scores of an edit, teacher-forced: to be put beside the literature, and beside free generation.

A model can find the new answer likelier than the old one and say neither. ``evaluate`` reads what it says; these scores
are here because published ones are of this kind.

Source: Meng et al. 2022 (ROME, 2202.05262), section 3.4. Known deviations: prompts are chat questions, with the reply
begun by the fact's cloze; a fact's own question is the edit prompt, its held-out ones are the paraphrases; neighbours
are known facts of the same relation, each compared with its own answer; fluency is that of one greedy text after the
cloze, which goes on over stop tokens as theirs does, and on the scale of ``ngram_entropy``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from workbench.editing.applied import applied, check_under, chosen_stages
from workbench.evaluation.answering import Answering, begun_by_cloze
from workbench.evaluation.chosen import evaluated_pool
from workbench.evaluation.evaluate import known_neighbours
from workbench.language.generation import greedy_answers
from workbench.language.prompts import answer_ids
from workbench.language.scoring import cached_nll
from workbench.language.tokens import decoded
from workbench.models.cache import Ids
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact, FactSet, Rate
from workbench.types.intervals import harmonic_mean, mean_over, ngram_entropy, share
from workbench.types.torch_settings import own_torch_settings

FLUENCY_TOKENS = 100
SHARES = ("efficacy", "paraphrase", "neighbourhood")


@own_torch_settings()
def counterfact_rates(
    model: LoadedModel, edit: Edit, *, stages: Sequence[str] | None = None, pool: FactSet | None = None, seed: int = 0
) -> dict[str, dict[str, Rate]]:
    """Measure CounterFact's scores before and after an edit: efficacy, paraphrase, neighbourhood, their harmonic mean,
    and fluency.

    An answer wins where its negative log-likelihood, nats per token, is the lower one.

    Args:
        model: The edit's base model; it is not changed.
        edit: The edit.
        stages: Stages of the edit, besides the base; None for all.
        pool: Where neighbours come from; the bundled facts by default, beside them the sealed ones for a sealed fact.
            Facts whose answers the edit used are none.
        seed: Of the bootstrap over facts.

    Returns:
        By stage, ``"base"`` first, then by name: ``efficacy`` (the new answer wins on the fact's question),
        ``paraphrase`` (on its held-out questions), ``neighbourhood`` (a neighbour's own answer wins over the new one),
        ``score`` (the harmonic mean of the three, without an interval), each from 0 to 1; ``fluency`` (weighted entropy
        of bigrams and trigrams in 100 greedy tokens, bits). Without neighbours, or held-out questions, that rate and
        the score are NaN with n = 0.

    Raises:
        ValueError: An edited model, an edit of another base, or an unknown stage.

    Example:
        >>> rates = wb.counterfact_rates(model, edit, pool=facts)
        >>> list(rates), list(rates["learn"])
        (['base', 'unlearn', 'learn'], ['efficacy', 'paraphrase', 'neighbourhood', 'score', 'fluency'])
        >>> rates["learn"]["efficacy"].value
        1.0
    """
    check_under(model, edit, "counterfact_rates")
    names = chosen_stages(edit, stages)
    pool = evaluated_pool(pool, edit.facts, "own")
    free = pool.without([*edit.facts, *(f for f in pool if f.id in edit.used_ids)])
    near = {fact.id: known_neighbours(model, free, [fact], None, seed, False, []) for fact in edit.facts}
    rates = {"base": _rates(model, edit.facts, near, seed)}
    for stage in names:
        with applied(model, edit, stage, stack=True) as edited:
            rates[stage] = _rates(edited, edit.facts, near, seed)
    return rates


def _rates(model: LoadedModel, facts: Iterable[Fact], near: dict[str, list[Fact]], seed: int) -> dict[str, Rate]:
    rows: list[tuple[str, str, Ids, str, str]] = []
    texts: dict[str, list[float]] = {}
    for fact in facts:
        own = _begun(model, fact, fact.question)
        rows.append(("efficacy", fact.id, own, fact.target, fact.answer))
        rows += [("paraphrase", fact.id, _begun(model, fact, q), fact.target, fact.answer) for q in fact.heldout]
        rows += [("neighbourhood", f.id, _begun(model, f, f.question), f.answer, fact.target) for f in near[fact.id]]
        (said,) = greedy_answers(model, [own], max_new_tokens=FLUENCY_TOKENS, stop=False)
        entropy = ngram_entropy(f"{fact.prompt} {said.text}")
        texts[fact.id] = [] if math.isnan(entropy) else [entropy]
    prompts = [prompt for *_, prompt, _, _ in rows]
    asked = [decoded(model, prompt) for prompt in prompts]
    names = [wanted for *_, wanted, _ in rows] + [other for *_, other in rows]
    answers = [answer_ids(model, name, "cloze", before=text) for name, text in zip(names, asked * 2, strict=True)]
    nll = cached_nll(model, prompts * 2, answers)
    wins = [a < b for a, b in zip(nll[: len(rows)], nll[len(rows) :], strict=True)]
    rates = {
        name: share([(row[1], won) for row, won in zip(rows, wins, strict=True) if row[0] == name]) for name in SHARES
    }
    values = [rates[name].value for name in SHARES]
    n = 0 if any(map(math.isnan, values)) else sum(rates[name].n for name in SHARES)
    rates["score"] = Rate(harmonic_mean(values), n, math.nan, math.nan, "harmonic mean", len(texts))
    return rates | {"fluency": mean_over(texts, seed=seed)}


def _begun(model: LoadedModel, fact: Fact, question: str) -> Ids:
    """A chat question with the reply begun by the fact's cloze, as a model reads it."""
    return Answering(model).prompt_ids([begun_by_cloze(fact, question)])[0]
