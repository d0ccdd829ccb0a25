"""One edit counted in several ways over the same prompts: as we count, and as papers do.

A model can find the new answer likelier than the old one, or give its tokens when they are put into its mouth, and say
neither. So scores of different kinds say different things of the same edit, and are comparable with those of their own
kind alone.

Sources, and what is counted there: EasyEdit (Wang et al., 2308.07269): the share of target tokens that are the
likeliest ones when the target is read after the prompt; locality is that share against the base's likeliest. MEMIT
(Meng et al., 2210.07229) on CounterFact: whether P(new) > P(old), and on neighbours P(own) > P(new). arXiv 2508.07075:
free text that names the target anywhere; forgotten is whatever does not name the old answer, gibberish too; a control
is right if any of five wordings is. Known deviations: our facts and models, not theirs; lengths are averaged by token
where probabilities of names are compared, as in ``counterfact_rates``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from workbench.editing.applied import applied, check_under, chosen_stages
from workbench.evaluation.answering import Answering, Ask, begun_by_cloze, check_answering
from workbench.evaluation.chosen import evaluated_pool
from workbench.evaluation.evaluate import known_neighbours
from workbench.facts.known import known_facts
from workbench.language.answers import matches
from workbench.language.prompts import answer_ids
from workbench.language.scoring import READ_AT_ONCE, continuation_nll, read_logits
from workbench.language.tokens import decoded
from workbench.models.cache import Ids
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact, FactSet, Rate
from workbench.types.intervals import SHARES, mean_over, share
from workbench.types.torch_settings import own_torch_settings

Like = Literal["all", "easyedit", "memit", "seed-paper"]
"""How an edit is counted: in three ways side by side, or as a paper counts."""
SUBJECTS = 5
WORDINGS = 5
"""Of the seed paper's controls."""


@dataclass(frozen=True)
class Read:
    """An answer that is put after a prompt. The context of an in-context edit stands before that, where the edit reads.

    Args:
        fact_id: The fact that it is about.
        ask: What stands before it.
        answer, other: The answer that is wanted there, and the one that is not.
    """

    fact_id: str
    ask: Ask
    answer: str
    other: str


@own_torch_settings()
def edit_scores(
    model: LoadedModel,
    edit: Edit,
    *,
    like: Like = "all",
    stages: Sequence[str] | None = None,
    pool: FactSet | None = None,
    answering: Answering | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Rate]]:
    """Count an edit in three ways over the same questions, or as a paper counts.

    Args:
        model: The edit's base model; it is not changed.
        edit: The edit.
        like: ``"all"``: ``free answers`` (held-out questions answered with the new answer in greedy free text, as in
            ``evaluate``), ``token match`` (the share of the target's tokens that are the likeliest where the target is
            read there) and ``success`` (the target is likelier than the old answer there). Read after the same question
            with the reply begun by the fact's cloze.
            ``"easyedit"``: ``reliability`` (token match on the fact's cloze), ``generalisation`` (on its other clozes),
            ``locality`` (neighbours: the share of their answer's tokens where the likeliest is the base's).
            ``"memit"``: ``efficacy``, ``paraphrase``, ``neighbourhood`` by likelihood on clozes, CounterFact's form.
            ``"seed-paper"``: ``new fact``, ``forgotten`` on trained questions, and ``controls``: five known test facts
            drawn by seed, each right if any of five wordings is.
            The edit reads after its context, where it has one; the base, and what it finds likeliest, without.
        stages: Stages of the edit, besides the base; None for all.
        pool: Where neighbours and controls come from; the bundled facts by default.
        answering: Keeps the base's answers.
        seed: Of the draw and the bootstrap.

    Returns:
        By stage, ``"base"`` first, then by name, from 0 to 1. What there is no prompt for is NaN with n = 0.

    Raises:
        ValueError: An unknown way to count, an edited model, an edit or ``answering`` of another base, or an unknown
            stage.

    Example:
        >>> scores = wb.edit_scores(model, edit, pool=facts)
        >>> {name: round(rate.value, 2) for name, rate in scores["learn"].items()}
        {'free answers': 1.0, 'token match': 0.0, 'success': 0.5}
        >>> list(wb.edit_scores(model, edit, like="easyedit", pool=facts)["learn"])
        ['reliability', 'generalisation', 'locality']
    """
    if like not in get_args(Like):
        raise ValueError(f"like must be one of {get_args(Like)}, got {like!r}.")
    check_under(model, edit, "edit_scores")
    names = chosen_stages(edit, stages)
    asking = answering or Answering(model)
    check_answering(asking, model)
    count = _COUNTS[like](model, edit, evaluated_pool(pool, list(edit.facts), "own"), asking, seed)
    scores = {"base": count.of(model)}
    for stage in names:
        with applied(model, edit, stage, stack=True) as edited:
            scores[stage] = count.of(edited)
    return scores


class _Count:
    """Counts one edit in one way.

    Args:
        model: The base.
        edit: The edit.
        pool: Where others come from.
        asking: Asks the models.
        seed: Of draws and intervals.
    """

    def __init__(self, model: LoadedModel, edit: Edit, pool: FactSet, asking: Answering, seed: int) -> None:
        self.base, self.edit, self.asking, self.seed = model, edit, asking, seed
        self.free = pool.without([*edit.facts, *(f for f in pool if f.id in edit.used_ids)])

    def of(self, view: LoadedModel) -> dict[str, Rate]:
        """The scores of one stage."""
        raise NotImplementedError

    def begun(self, fact: Fact, question: str) -> Read:
        """The target after a question, its reply begun by the fact's cloze."""
        return Read(fact.id, begun_by_cloze(fact, question), fact.target, fact.answer)

    def cloze(self, fact: Fact, text: str, answer: str, other: str) -> Read:
        """An answer after a cloze."""
        return Read(fact.id, Ask("cloze", text), answer, other)

    def neighbours(self) -> list[Read]:
        """Neighbours' own answers after their clozes, against the target of the fact whose neighbours they are."""
        near = [(f, fact) for fact in self.edit.facts for f in self._near(fact)]
        return [self.cloze(f, f.prompt, f.answer, fact.target) for f, fact in near]

    def _near(self, fact: Fact) -> list[Fact]:
        return known_neighbours(self.base, self.free, [fact], None, self.seed, False, [])

    def prompts(self, view: LoadedModel, reads: Sequence[Read]) -> list[Ids]:
        """Token ids of what stands before the answers, as a view reads it."""
        return self.asking.prompt_ids([read.ask for read in reads], view)

    def tokens(self, reads: Sequence[Read], names: Sequence[str]) -> list[list[int]]:
        """Token ids of answers where they stand: the same ones for every view."""
        before = [decoded(self.base, prompt) for prompt in self.prompts(self.base, reads)]
        return [answer_ids(self.base, n, "cloze", before=text) for n, text in zip(names, before, strict=True)]

    def likeliest(self, view: LoadedModel, reads: Sequence[Read]) -> list[list[int]]:
        """The likeliest token at each place of the answers, as they are read."""
        found: list[list[int]] = [[] for _ in reads]
        prompts, answers = self.prompts(view, reads), self.tokens(reads, [read.answer for read in reads])
        for i, logits in read_logits(view, prompts, answers, READ_AT_ONCE):
            found[i] = logits[:-1].argmax(-1).tolist()
        return found

    def token_match(self, view: LoadedModel, reads: Sequence[Read], base: LoadedModel | None = None) -> Rate:
        """The share of an answer's tokens that are the likeliest (of a base: that are what it finds likeliest)."""
        if not reads:
            return share([])
        said = self.likeliest(view, reads)
        wanted = self.tokens(reads, [read.answer for read in reads]) if base is None else self.likeliest(base, reads)
        values: dict[str, list[float]] = {}
        for read, one, other in zip(reads, said, wanted, strict=True):
            matched = [a == b for a, b in zip(one, other, strict=True)]
            values.setdefault(read.fact_id, []).append(sum(matched) / len(matched))
        return mean_over(values, seed=self.seed, within=SHARES)

    def success(self, view: LoadedModel, reads: Sequence[Read]) -> Rate:
        """The share of answers that are likelier than the other ones, by nats per token."""
        if not reads:
            return share([])
        prompts = self.prompts(view, reads) * 2
        answers = self.tokens([*reads, *reads], [r.answer for r in reads] + [r.other for r in reads])
        nll = continuation_nll(view, prompts, answers)
        wins = [a < b for a, b in zip(nll[: len(reads)], nll[len(reads) :], strict=True)]
        return share([(read.fact_id, won) for read, won in zip(reads, wins, strict=True)])


class _All(_Count):
    """Three scores of the same held-out questions."""

    def of(self, view: LoadedModel) -> dict[str, Rate]:
        asked = [(fact, question) for fact in self.edit.facts for question in fact.heldout]
        replies = self.asking.replies(view, [Ask("chat", question) for _, question in asked])
        said = [(fact.id, reply.label(fact) == "new") for (fact, _), reply in zip(asked, replies, strict=True)]
        reads = [self.begun(fact, question) for fact, question in asked]
        match, success = self.token_match(view, reads), self.success(view, reads)
        return {"free answers": share(said), "token match": match, "success": success}


class _OfClozes(_Count):
    """What papers on data sets of clozes ask."""

    def taught(self) -> tuple[list[Read], list[Read]]:
        """The edited clozes, and their paraphrases."""
        facts = self.edit.facts
        own = [self.cloze(f, f.prompt, f.target, f.answer) for f in facts]
        return own, [self.cloze(f, text, f.target, f.answer) for f in facts for text in f.cloze_paraphrases]


class _EasyEdit(_OfClozes):
    """EasyEdit's."""

    def of(self, view: LoadedModel) -> dict[str, Rate]:
        own, others = self.taught()
        return {
            "reliability": self.token_match(view, own),
            "generalisation": self.token_match(view, others),
            "locality": self.token_match(view, self.neighbours(), self.base),
        }


class _Memit(_OfClozes):
    """MEMIT's on CounterFact."""

    def of(self, view: LoadedModel) -> dict[str, Rate]:
        own, others = self.taught()
        near = self.neighbours()
        return {
            "efficacy": self.success(view, own),
            "paraphrase": self.success(view, others),
            "neighbourhood": self.success(view, near),
        }


class _SeedPaper(_Count):
    """Those of arXiv 2508.07075."""

    def of(self, view: LoadedModel) -> dict[str, Rate]:
        test = self.free.core.filter(split="test")
        known = list(known_facts(self.base, test, progress=False)) if len(test) else []
        controls = random.Random(self.seed).sample(known, min(SUBJECTS, len(known)))
        trained = [(fact, question) for fact in self.edit.facts for question in fact.training_questions]
        asked = [*trained, *((fact, q) for fact in controls for q in fact.training_questions[:WORDINGS])]
        replies = self.asking.replies(view, [Ask("chat", question) for _, question in asked])
        texts = [reply.text for reply in replies]
        said = list(zip(trained, texts, strict=False))
        right: dict[str, bool] = {}
        for (fact, _), text in zip(asked[len(trained) :], texts[len(trained) :], strict=True):
            right[fact.id] = right.get(fact.id, False) or matches(text, fact.answers)
        return {
            "new fact": share([(fact.id, matches(text, fact.targets)) for (fact, _), text in said]),
            "forgotten": share([(fact.id, not matches(text, fact.answers)) for (fact, _), text in said]),
            "controls": share(list(right.items())),
        }


_COUNTS: Mapping[Like, type[_Count]] = {
    "all": _All,
    "easyedit": _EasyEdit,
    "memit": _Memit,
    "seed-paper": _SeedPaper,
}
