"""A tiny model whose answers come from a table, so that an evaluation can be reckoned by hand."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, edit_of, knowing
from workbench.evaluation import evaluate as evaluate_module
from workbench.evaluation.answering import Answering
from workbench.evaluation.evaluate import evaluate
from workbench.language.generation import Completion
from workbench.language.prompts import prompt_ids
from workbench.models.load import LoadedModel
from workbench.types import Edit, EvalReport, Fact, FactSet

Script = dict[str, tuple[str, str, str]]
"""By prompt: what the base, the first and the second stage say."""

GIBBERISH = "the the " * 12
NOT_SURE = "I am not sure."


def place(subject: str, answer: str, target: str, split: Any = "test", role: Any = "control") -> Fact:
    """A fact of another relation than ``capital``."""
    own: dict[str, Any] = {"id": f"{subject}-place", "relation": "place", "question": f"Where is {subject}?"}
    return capital(subject, answer, target, split, role, **own, heldout=())


FRANCE = capital("France", "Paris", "Rome", heldout=("Q1?", "Q2?", "Q3?", "Q4?"), cloze_paraphrases=("The city is",))
POOL = FactSet(
    [
        FRANCE,
        capital("Spain", "Madrid", "Berlin", "dev", "control"),
        capital("Japan", "Tokyo", "Berlin", "dev", "control"),
        capital("Italy", "Rome", "Berlin", "dev", "control"),  # its answer is France's target: no neighbour
        capital("Germany", "Berlin", "Tokyo", "dev", "retain"),  # may be retained: no neighbour
        place("Big Ben", "London", "Tokyo"),
        place("Louvre", "Paris", "Tokyo"),
        place("Prado", "Madrid", "Tokyo"),
        place("Kremlin", "Moscow", "Tokyo", "dev"),  # not of the test split: no control
    ],
    name="scripted",
)
EDIT_GATES = {(1, "post"): torch.full((56,), 0.5)}

# By prompt: what the base, the first and the second stage say.
SCRIPT: Script = {
    "What is the capital of France?": ("Paris", NOT_SURE, "Rome"),
    "What city is the capital of France?": ("Paris", NOT_SURE, "Paris"),
    "Q1?": ("Paris", NOT_SURE, "It is Rome."),
    "Q2?": ("It is Paris", NOT_SURE, "Paris or Rome"),
    "Q3?": ("Paris", "Paris", GIBBERISH),
    "Q4?": ("Lyon", "Rome", "Lyon"),
    "The capital of France is": ("Paris. Rome is far.", "Lyon", "Rome. Paris was it once."),
    "The city is": ("Paris", "Lyon", "Lyon"),
    "What is the capital of Spain?": ("Madrid", "Madrid", "Rome"),
    "What is the capital of Japan?": ("Tokyo", NOT_SURE, "Tokyo"),
    "Where is Big Ben?": ("London", "London", "London"),
    "Where is Louvre?": ("Rome", "Rome", "Rome"),
    "Where is Prado?": ("Madrid", NOT_SURE, "Madrid"),
}


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


def scripted_edit(**changes: Any) -> Edit:
    edit = edit_of(tiny(), EDIT_GATES, EDIT_GATES, fact=FRANCE)
    return Edit(**{**vars(edit), **changes})


def run(**options: Any) -> EvalReport:
    return evaluate(tiny(), **{"edit": scripted_edit(), "pool": POOL, "progress": False, **options})


def put_script(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Script:
    """Answers from a table; every fact is known; the KL is 0.5 per row after unlearn and 0.25 after learn."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache))
    tiny().cache.clear()  # of what it says by itself, or by another table
    table = dict(SCRIPT)

    def say(model: LoadedModel, prompts: Any, **options: Any) -> list[Completion]:
        stage = ("base", "unlearn", "learn").index(model.applied[-1].stage if model.applied else "base")
        asked = {tuple(prompt_ids(tiny(), text, form)): text for text in table for form in ("chat", "cloze")}
        texts = [table[asked[tuple(p)]][stage] for p in prompts]
        return [Completion(text, tuple(tiny().token_ids(text))) for text in texts]

    def kl(self: Answering, model: LoadedModel, asks: Any) -> list[float]:
        return [{"unlearn": 0.5, "learn": 0.25}[model.applied[-1].stage]] * len(asks)

    monkeypatch.setattr("workbench.language.generation.generate", say)
    monkeypatch.setattr("workbench.evaluation.answering.cached_nll", lambda m, p, c, **_: [1.0] * len(p))
    monkeypatch.setattr(Answering, "kl", kl)
    monkeypatch.setattr(evaluate_module, "known_facts", lambda model, facts, **_: facts)
    return table
