"""What a public data set asks beside its facts, asked before and after an edit: neighbours, locality, portability.

Source: neighbourhood and attribute prompts as in CounterFact (Meng et al. 2022, 2202.05262, section 3.4: which of two
answers is likelier); locality and portability as in EasyEdit and KnowEdit (2305.13172, 2401.01286), in free generation.
Known deviations: EasyEdit compares teacher-forced tokens, here the model speaks; locality is that it says what the base
says, to the letter, whether or not that is what the file expects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from workbench.editing.applied import applied, check_under, chosen_stages
from workbench.evaluation.counterfact import FLUENCY_TOKENS
from workbench.language.answers import matches
from workbench.language.generation import greedy_answers
from workbench.language.prompts import answer_ids, prompt_ids
from workbench.language.replies import counted_text, warn_of_thoughts
from workbench.language.scoring import cached_nll
from workbench.language.tokens import decoded
from workbench.models.load import LoadedModel
from workbench.types import DataPrompt, DataPromptKind, Edit, Fact, Form, Rate
from workbench.types.intervals import mean_over, ngram_entropy, share
from workbench.types.torch_settings import own_torch_settings

_Asked = tuple[Fact, DataPrompt]
_Rows = list[tuple[str, bool]]


@own_torch_settings()
def dataset_rates(
    model: LoadedModel, edit: Edit, *, stages: Sequence[str] | None = None, seed: int = 0
) -> dict[str, dict[str, Rate]]:
    """Ask what the facts' data set asks beside them (``Fact.data_prompts``), before and after an edit.

    A prompt that ends in a question mark is asked in chat form, any other is gone on with as it is.

    Args:
        model: The edit's base model; it is not changed.
        edit: The edit of facts from a public data set.
        stages: Stages of the edit, besides the base; None for all.
        seed: Of the bootstrap over facts of ``fluency``.

    Returns:
        By stage, ``"base"`` first, then by kind, each from 0 to 1: ``neighbourhood`` (another subject's answer is
        likelier than the target), ``attribute`` (a subject's true answer, the target, is likelier than the edited
        fact's old answer), ``locality`` (the model says what the base says), ``portability`` (it names what follows
        from the target); ``fluency`` of the generation prompts in bits, as in ``counterfact_rates``. Where a kind has
        several groups, each has a rate of its own too (``"portability: Reasoning"``). Kinds that the facts have no
        prompts for are left out.

    Raises:
        ValueError: An edited model, an edit of another base, an unknown stage, or facts without such prompts.

    Example:
        >>> try:
        ...     wb.dataset_rates(model, edit)
        ... except ValueError as error:
        ...     print(error)
        The facts of this edit (france-capital) have no data_prompts; load them from a data set that has some, ...
    """
    check_under(model, edit, "dataset_rates")
    names = chosen_stages(edit, stages)
    asked = [(fact, prompt) for fact in edit.facts for prompt in fact.data_prompts]
    if not asked:
        listed = ", ".join(fact.id for fact in edit.facts[:3])
        raise ValueError(
            f"The facts of this edit ({listed}) have no data_prompts; load them from a data set that has some, such as "
            "CounterFact, zsRE or KnowEdit."
        )
    rates = {"base": {name: _at_base(name, rate) for name, rate in _rates(model, model, asked, seed).items()}}
    for stage in names:
        with applied(model, edit, stage, stack=True) as edited:
            rates[stage] = _rates(edited, model, asked, seed)
    return rates


def _at_base(name: str, rate: Rate) -> Rate:
    """A rate of the base: it says what itself says, by definition."""
    return rate.defined() if name.partition(": ")[0] == "locality" else rate


def _rates(model: LoadedModel, base: LoadedModel, asked: Sequence[_Asked], seed: int) -> dict[str, Rate]:
    rows: dict[str, _Rows] = {}

    def note(prompts: Sequence[_Asked], wins: Sequence[bool | None]) -> None:
        for (fact, prompt), won in zip(prompts, wins, strict=True):
            if won is None:
                continue
            rows.setdefault(prompt.kind, []).append((fact.id, won))
            if prompt.group:
                rows.setdefault(f"{prompt.kind}: {prompt.group}", []).append((fact.id, won))

    compared = [(f, p) for f, p in asked if p.kind in ("neighbourhood", "attribute")]
    note(compared, _likelier(model, compared))
    local, follows = _of(asked, "locality"), [(f, p) for f, p in _of(asked, "portability") if p.answers]
    said, before = _spoken(model, local), _spoken(base, local)
    note(local, [None if a is None or b is None else a == b for a, b in zip(said, before, strict=True)])
    texts = _spoken(model, follows)
    named = [None if t is None else matches(t, p.answers) for t, (_, p) in zip(texts, follows, strict=True)]
    note(follows, named)
    warn_of_thoughts(base, sum(text is None for text in (*said, *texts)), len(said) + len(texts))
    rates = {name: share(found) for name, found in rows.items()}
    fluency = _fluency(model, _of(asked, "generation"))
    return {**_without_lone_groups(rates), **({"fluency": mean_over(fluency, seed=seed)} if fluency else {})}


def _of(asked: Sequence[_Asked], kind: DataPromptKind) -> list[_Asked]:
    return [(fact, prompt) for fact, prompt in asked if prompt.kind == kind]


def _without_lone_groups(rates: dict[str, Rate]) -> dict[str, Rate]:
    """The rates without that of a group that is its whole kind."""
    kinds = [name.partition(": ")[0] for name in rates if ": " in name]
    return {name: rate for name, rate in rates.items() if ": " not in name or kinds.count(name.partition(": ")[0]) > 1}


def _form(prompt: DataPrompt) -> Form:
    return "chat" if prompt.prompt.rstrip().endswith("?") else "cloze"


def _ids(model: LoadedModel, asked: Sequence[_Asked]) -> list[list[int]]:
    return [prompt_ids(model, prompt.prompt, _form(prompt)) for _, prompt in asked]


def _likelier(model: LoadedModel, asked: Sequence[_Asked]) -> list[bool]:
    """Whether each prompt's own answer is likelier than the one that must not come, by nats per token."""
    ids = _ids(model, asked)
    names = [prompt.answers[0] for _, prompt in asked]
    names += [fact.target if prompt.kind == "neighbourhood" else fact.answer for fact, prompt in asked]
    answers = [
        answer_ids(model, name, _form(prompt), before=decoded(model, before))
        for name, (_, prompt), before in zip(names, [*asked] * 2, ids * 2, strict=True)
    ]
    nll = cached_nll(model, ids * 2, answers) if asked else []
    return [a < b for a, b in zip(nll[: len(asked)], nll[len(asked) :], strict=True)]


def _spoken(model: LoadedModel, asked: Sequence[_Asked]) -> list[str | None]:
    """What the model answers, as far as it counts; None where it is a thought without end."""
    said = greedy_answers(model, _ids(model, asked)) if asked else []
    return [counted_text(model.base, one.text, _form(p)) for one, (_, p) in zip(said, asked, strict=True)]


def _fluency(model: LoadedModel, asked: Sequence[_Asked]) -> dict[str, list[float]]:
    """The entropy of n-grams of each generated text, by fact."""
    found: dict[str, list[float]] = {}
    said = greedy_answers(model, _ids(model, asked), max_new_tokens=FLUENCY_TOKENS, stop=False) if asked else []
    for one, (fact, prompt) in zip(said, asked, strict=True):
        entropy = ngram_entropy(f"{prompt.prompt} {one.text}")
        found.setdefault(fact.id, [])
        if not math.isnan(entropy):
            found[fact.id].append(entropy)
    return {name: values for name, values in found.items() if values}
