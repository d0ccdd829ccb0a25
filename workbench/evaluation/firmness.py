"""Which controls the untouched base itself loses: asked one at a time, or with its numbers rounded to bfloat16.

Such a control is a near tie of the base. An edit that loses it shows no more than any change of that size would, so a
report counts firm controls apart and lists the others.

Source: the project's own; that a batch moves logits by about 1e-4 and bfloat16 by a thousand times as much is measured
(``benchmarks/firm_controls.py`` lists what comes of it on the bundled model).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from workbench.evaluation.answering import Answering, Ask
from workbench.facts.known_table import answer_keys
from workbench.files.atomic import write_bytes
from workbench.language.answers import classify
from workbench.language.generation import generate
from workbench.language.replies import counted_text
from workbench.models.load import LoadedModel
from workbench.types import Fact, Flip
from workbench.types.report import Condition

Said = dict[Condition, str]
"""What the base says to a question in each condition."""
VERSION = 1


def flips_of(answering: Answering, facts: Sequence[Fact], *, measure: bool | None = None) -> tuple[Flip, ...] | None:
    """The facts whose question the base answers rightly, but not in every condition.

    Args:
        answering: Asks the base.
        facts: Those asked as controls.
        measure: Whether to ask again what is not on record; None does for none, False looks at no record either.

    Returns:
        The flips; None where it was not looked at, or is not on record of all of them.
    """
    if measure is False or not facts:
        return None
    model = answering.base
    asks = [Ask("chat", fact.question) for fact in facts]
    before = answering.replies(model, asks)
    right = [fact for fact, reply in zip(facts, before, strict=True) if reply.label(fact) == "old"]
    keys = answer_keys(model, [("chat", f.question) for f in right], answering.max_new_tokens)
    record = on_record(model.fingerprint)
    unknown = [fact for fact, key in zip(right, keys, strict=True) if key not in record]
    if unknown and measure is None:
        return None
    said = said_again(answering, unknown) if unknown else {}
    return tuple(
        Flip(fact_id=fact.id, prompt=fact.question, condition=condition, text=text)
        for fact, key in zip(right, keys, strict=True)
        for condition, text in (record[key] if key in record else said[fact.id]).items()
        if not _right(answering, fact, text)
    )


def said_again(answering: Answering, facts: Sequence[Fact]) -> dict[str, Said]:
    """By fact id, what the base says to a fact's question in each condition. A model whose weights are not float32 is
    asked in another batch only."""
    model = answering.base
    prompts = answering.prompt_ids([Ask("chat", fact.question) for fact in facts])
    most = answering.max_new_tokens
    views: dict[Condition, tuple[LoadedModel, int]] = {"another batch": (model, 1)}
    if model.dtype == torch.float32:
        views["bfloat16"] = (rounded(model), answering.batch_size)
    said: dict[str, Said] = {fact.id: {} for fact in facts}
    for condition, (view, size) in views.items():
        for fact, reply in zip(facts, generate(view, prompts, max_new_tokens=most, batch_size=size), strict=True):
            said[fact.id][condition] = reply.text
    return said


def rounded(model: LoadedModel) -> LoadedModel:
    """A copy of a base whose weights are bfloat16; the model itself is not changed. It takes half of the model's
    memory."""
    memo: dict[int, Any] = {}
    for parameter in model.hf.parameters():
        half = torch.nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False)
        memo[id(parameter)] = half
    hf = copy.deepcopy(model.hf, memo)
    name = f"{model.name} in bfloat16"
    return LoadedModel(hf, model.tokenizer, name=name, architecture=model.architecture, template=model.template)


def _right(answering: Answering, fact: Fact, text: str) -> bool:
    """Whether a reply names the answer, as a control is judged."""
    counted = counted_text(answering.base, text, "chat")
    return counted is not None and classify(counted, fact) == "old"


def record_path(fingerprint: str) -> Path:
    """Where the record of a model would be."""
    return Path(str(files("workbench").joinpath("evaluation/data/firm"))) / f"{fingerprint[:16]}.json"


@lru_cache(maxsize=4)
def on_record(fingerprint: str) -> Mapping[str, Said]:
    """What a model says in each condition by ``answer_keys``; of the bundled model it is shipped."""
    path = record_path(fingerprint)
    if not path.is_file():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    return data["said"] if (data["version"], data["fingerprint"]) == (VERSION, fingerprint) else {}


def write_record(fingerprint: str, said: Mapping[str, Said]) -> Path:
    """Write what a model says in each condition; returns the file."""
    path = record_path(fingerprint)
    data = {"version": VERSION, "fingerprint": fingerprint, "said": dict(sorted(said.items()))}
    write_bytes(path, (json.dumps(data, ensure_ascii=False, indent=0) + "\n").encode())
    return path
