"""What an evaluation measures besides greedy answers: samples, long stretches of text, and the floor of its rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workbench.evaluation.answering import Answering, Ask
from workbench.evaluation.floor import Floor
from workbench.evaluation.long_text import Stretches
from workbench.evaluation.questions import Question
from workbench.language.answers import find_old
from workbench.language.replies import counted_text
from workbench.language.sampling import sample
from workbench.models.load import LoadedModel
from workbench.types.report import SampleRow

FLOOR_PROMPTS = 24
"""Questions about controls and neighbours on which the floor's KL is matched."""


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What else is measured.

    Args:
        samples: So many samples at temperature 1 of each held-out question; 0 for none.
        stretches: Long stretches of ordinary text to read.
        floor: Makes the floor from prompts, or says why there is none.
        probabilities: By edited fact, those of the old answer, the new one and the refusal under a model.
    """

    samples: int = 0
    stretches: Stretches | None = None
    floor: Callable[[Sequence[Ask]], Floor | str] | None = None
    probabilities: Callable[[LoadedModel], dict[str, dict[str, float]]] | None = None

    def floor_of(self, questions: Sequence[Question], missing: list[str]) -> Floor | None:
        """The floor, with its KL matched on controls and neighbours, evenly over them; why there is none is added to
        what is missing."""
        if self.floor is None:
            return None
        asks = list(dict.fromkeys(q.ask for q in questions if q.group in ("control", "neighbour")))
        made = self.floor(asks[:: max(1, -(-len(asks) // FLOOR_PROMPTS))]) if asks else "there are no controls"
        if isinstance(made, str):
            missing.append(f"floor: {made}")
            return None
        return made


def sample_rows(
    answering: Answering, model: LoadedModel, questions: Sequence[Question], stage: str, n: int, seed: int
) -> list[SampleRow]:
    """Samples of the held-out questions under one stage, and which of them name the old answer. All stages are sampled
    with the same noise. A thought without end names nothing.

    Args:
        answering: Whose base and longest answer count.
        model: The model of the stage.
        questions: Of which those of the group ``heldout`` are asked.
        stage: What the rows say about it.
        n: Samples of each question; none for 0.
        seed: Of the samples.
    """
    asked = [q for q in questions if q.group == "heldout"] if n else []
    if not asked:
        return []
    prompts = answering.prompt_ids([q.ask for q in asked], model)
    most, size = answering.max_new_tokens, answering.batch_size
    said = sample(model, prompts, n, max_new_tokens=most, batch_size=size, seed=seed)
    rows: list[SampleRow] = []
    for question, samples in zip(asked, said, strict=True):
        fact, form = question.judge, question.ask.form
        counted = [counted_text(answering.base, one.text, form) or "" for one in samples]
        old = tuple(bool(find_old(text, fact)) for text in counted)
        texts = tuple(one.text for one in samples)
        given = {"fact_id": question.fact.id, "prompt": question.ask.prompt, "texts": texts}
        rows.append(SampleRow(group=question.group, stage=stage, old=old, **given))
    return rows
