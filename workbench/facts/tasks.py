"""The bundled tasks: pairs of prompts that differ in one token, by the name of what is asked."""

from __future__ import annotations

import difflib
import json
import warnings
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

from workbench.language.contrasts import prepare
from workbench.language.tokens import token_text, token_texts
from workbench.models.load import LoadedModel
from workbench.types import Contrast, Split, TaskSet

TASKS = ("ioi", "agreement", "greater-than", "pronouns", "opposites", "induction", "capitals")
"""Their names; each is a file of ``facts/data/tasks/``, whose README says how they were made."""
YEARS = "greater-than"
_ALSO = {"greater_than": "greater-than", "greaterthan": "greater-than", "years": "greater-than"}


def load_task(name: str, *, split: Split | None = None, model: LoadedModel | None = None) -> TaskSet:
    """Load a bundled task (own work, CC0): contrasts of one kind, each a clean and a corrupted text that differ in one
    token under the bundled model's tokenizer, with a right and a wrong next token.

    ``"ioi"``: whom something is done to, of two people. ``"agreement"``: number of a verb, also past other nouns.
    ``"greater-than"``: a later year (digits of later decades against those of earlier ones). ``"pronouns"``: gender of
    a pronoun. ``"opposites"``. ``"induction"``: what followed a word before. ``"capitals"``: of countries and states.

    How well the bundled model does each is in ``docs/results/tasks.md``; items that it gets wrong stay in.

    Items are made for the bundled model's tokenizer. **With another model give it**: items that its tokenizer reads
    otherwise (prompts of unequal length, an answer of two tokens) are left out with a warning, and the years of
    ``"greater-than"`` are told apart by as many digits as its tokens have. Without a model the answers of
    ``"greater-than"`` are single digits, which says nothing about a model whose tokens have two.

    Args:
        name: The task.
        split: ``"dev"`` or ``"test"`` alone, on which circuits are searched for and judged; both when left out.
        model: The model that is to read the items; nothing of it is computed but tokens.

    Returns:
        The contrasts, in the order of the file, ``dev`` first.

    Raises:
        ValueError: An unknown name, with the names that there are, an unknown split, or a model for whose tokenizer no
            item fits.

    Source: what is asked follows Wang et al. 2022 (indirect objects), Linzen et al. 2016 (agreement), Hanna et al. 2023
    (greater-than) and Olsson et al. 2022 (induction). Deviations: all sentences are our own; years are told apart by
    their decade where tokens are digits, and the decade of the given year counts on neither side.

    Example:
        >>> task = wb.load_task("ioi")
        >>> task
        TaskSet('ioi', 64 contrasts: 32 dev, 32 test)
        >>> task[0]
        Contrast('While Tom and Peter were having dinner, Peter passed the salt to' | 'While Tom and Peter were having
        dinner, Tom passed the salt to': ' Tom', not ' Peter')
        >>> wb.load_task("greater-than", split="test")[0].answer
        ('7', '8', '9')
    """
    if name not in TASKS:
        near = _ALSO.get(name) or next(iter(difflib.get_close_matches(str(name), TASKS, n=1, cutoff=0.4)), None)
        hint = "" if near is None else f" Did you mean {near!r}?"
        raise ValueError(f"There is no task {name!r}; the tasks are {', '.join(map(repr, TASKS))}.{hint}")
    task = _read(name) if split is None else _read(name).filter(split=split)
    return task if model is None else _fitting(model, task)


@lru_cache(maxsize=len(TASKS))
def _read(name: str) -> TaskSet:
    path = files("workbench").joinpath(f"facts/data/tasks/{name}.json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    items: list[dict[str, Any]] = content["items"]
    return TaskSet(
        [_contrast(item) for item in items],
        name=name,
        title=content["title"],
        description=content["description"],
        splits={item["id"]: item["split"] for item in items},
        kinds={item["id"]: item["kind"] for item in items},
    )


def _contrast(item: dict[str, Any]) -> Contrast:
    """An item of a file as a contrast."""
    return Contrast(**{key: item[key] for key in ("id", "clean", "corrupted", "answer", "wrong", "positions")})


def _fitting(model: LoadedModel, task: TaskSet) -> TaskSet:
    """The items of a task that a model's tokenizer reads as they are meant."""
    kept: list[Contrast] = []
    reasons: list[str] = []
    for contrast in task:
        try:
            kept.append(prepare(model, _with_years(model, contrast) if task.name == YEARS else contrast).contrast)
        except ValueError as error:
            reasons.append(str(error))
    if not kept:
        raise ValueError(f"No item of {task.name!r} fits the tokenizer of {model.name}. The first: {reasons[0]}")
    if reasons:
        warnings.warn(
            f"{len(reasons)} of {len(task)} items of {task.name!r} do not fit the tokenizer of {model.name} and are "
            f"left out. The first: {reasons[0]}",
            stacklevel=3,
        )
    return task.with_contrasts(kept)


def _with_years(model: LoadedModel, contrast: Contrast) -> Contrast:
    """An item of years, told apart by as many digits as the tokens of the model have after the century.

    Raises:
        ValueError: The tokenizer does not read a year as its century and then digits of their own.
    """
    text, year = str(contrast.clean), str(contrast.positions["year"])
    century = text.index(year) + len(year) - 2
    before, ids = model.token_ids(text[:century]), model.token_ids(text)
    digits = token_text(model, ids[len(before)]) if ids[: len(before)] == before else ""
    if digits == year[2]:
        return contrast
    if digits != year[2:]:
        pieces = list(token_texts(model, model.token_ids(f" {year}")))
        raise ValueError(
            f"The year {year!r} is read as {pieces}, and the task needs a century and then one digit or two."
        )
    start = int(digits)
    after, upto = ([f"{one:02d}" for one in years] for years in (range(start + 1, 100), range(start + 1)))
    return replace(contrast, answer=after, wrong=upto)
