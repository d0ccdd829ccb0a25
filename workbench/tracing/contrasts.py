"""Contrasts of facts: the two runs that a trace of a fact has, as an object of one's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from workbench.facts.known import pool_or_bundled
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.tracing.corruption import with_swap
from workbench.types import Contrast, Fact, FactSet, Form
from workbench.types.effect import Corruption
from workbench.types.roles import role_of
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def contrast_of(
    model: LoadedModel,
    fact: Fact,
    *,
    corruption: Corruption,
    form: Form | None,
    token: Literal["answer", "target"],
    partner: Fact | None,
    pool: FactSet | None,
    noise: float,
) -> Contrast:
    """See ``Contrast.of``."""
    if corruption not in get_args(Corruption):
        raise ValueError(f"corruption must be one of {get_args(Corruption)}, got {corruption!r}.")
    prompt = traced_prompt(model, fact, form=form, token=token)
    assert prompt.other_id is not None  # a fact has a target
    named: dict[str, tuple[int, ...]] = {}
    for i in range(len(prompt.token_ids)):
        role = role_of(prompt, i)
        named[role] = (*named.get(role, ()), i)
    shared = Contrast(
        clean=prompt.token_ids,
        noise=noise,
        noise_at=prompt.subject,
        answer=prompt.answer_id,
        wrong=prompt.other_id,
        positions=named,
        form=prompt.form,
        id=fact.id,
    )
    if corruption == "noise":
        return shared
    new = with_swap(model, fact, prompt, partner, pool_or_bundled(pool))
    return replace(shared, corrupted=new.token_ids, noise=None, noise_at=None, wrong=new.other_id)
