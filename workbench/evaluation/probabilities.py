"""The probabilities of a fact's old answer, target and refusal, before and after each stage of an edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.editing.applied import applied, check_under
from workbench.evaluation.answer_slots import answers_at, rows_at
from workbench.language.prompts import traced_prompt
from workbench.language.scoring import continuation_probabilities
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact
from workbench.types.recipe import AnswerStyle
from workbench.types.torch_settings import own_torch_settings


def probabilities_at(
    base: LoadedModel, facts: Sequence[Fact], style: AnswerStyle, view: LoadedModel
) -> dict[str, dict[str, float]]:
    """By fact, the probabilities of ``"old"``, ``"new"`` and ``"refusal"`` where the base says its answer; without the
    facts whose answer it says in neither form.

    Args:
        base: The base model, whose words lead up to the answer.
        facts: The edited facts.
        style: What the edit teaches (``Recipe.answers``).
        view: The model that is asked.
    """
    found: dict[str, dict[str, float]] = {}
    for fact in facts:
        try:
            prompt = traced_prompt(view if view.context else base, fact)
        except ValueError:  # the base says something else; what a stage makes of it is in the rows
            continue
        texts = answers_at(prompt, fact, style)
        rows = rows_at(base.base, prompt, texts.values())
        found[fact.id] = dict(zip(texts, continuation_probabilities(view, rows), strict=True))
    return found


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
        ValueError: The base model says the answer in neither form, the edit is of another base, or the model carries
            edits already that it was not made on.

    Example:
        >>> probabilities = wb.answer_probabilities(model, fact, edit=edit)
        >>> list(probabilities)
        ['before', 'after unlearn', 'after learn']
        >>> {answer: round(p, 1) for answer, p in probabilities["after learn"].items()}
        {'old: Paris': 0.0, 'new: Rome': 1.0, 'refusal: I am not sure.': 0.0}
    """
    if edit is not None:
        check_under(model, edit, "answer_probabilities")
    prompt = traced_prompt(model, fact)
    taught = edit or (model.applied[-1].edit if model.applied else None)
    texts = answers_at(prompt, fact, taught.recipe.answer_style if taught else "own")
    names = [f"{name}: {text.strip()}" for name, text in texts.items()]

    def measure(view: LoadedModel) -> dict[str, float]:
        read = traced_prompt(view, fact) if view.context else prompt
        rows = rows_at(model.base, read, texts.values())
        return dict(zip(names, continuation_probabilities(view, rows), strict=True))

    stages = {"before": measure(model)}
    for stage in edit.stage_names if edit else ():
        assert edit is not None
        with applied(model, edit, stage, strength, stack=True) as changed:
            stages[f"after {stage}"] = measure(changed)
    return stages
