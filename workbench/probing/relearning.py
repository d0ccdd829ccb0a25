"""Relearning: how few steps of light fine-tuning bring the old answer back, against a fact that was never taught.

Knowledge that is only suppressed returns faster than knowledge that is not there. The control is an invented subject
with the same answer in the same sentences, trained in the same way from the same model.

Source: relearning attacks of the unlearning survey literature. Known deviations: fresh IA3 gates on every head and
neuron of the upper half of the layers are trained, not the weights, so that no second copy of the model is needed; and
no edited model is ever trained: the gates are made and dropped on a structure copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from workbench.editing.training.batching import Prepared, shared_prefix
from workbench.editing.training.optimisers import Adam
from workbench.editing.training.rows import Row, chat_row
from workbench.facts.wordings import held_out
from workbench.language.answers import classify
from workbench.language.generation import generate
from workbench.language.prompts import prompt_ids
from workbench.language.replies import counted_text
from workbench.language.scoring import continuation_probabilities
from workbench.language.tokens import decoded, following_ids, space_between
from workbench.language.traced_like import with_other_subject
from workbench.models.deltas import put_under_gates
from workbench.models.deltas.gates import inject_gates
from workbench.models.engine import Resumable
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.probing.battery import Battery, Skip
from workbench.probing.record import Measure, Probe, last_of_curve
from workbench.probing.strangers import never_taught
from workbench.types import Curve, CurveRule, CurveWords, Fact, GateDelta, Site

STEPS = 8
MEASURED = (0, 1, 2, 4, 6, 8)
RATE = 0.01
TRAINED, ASKED = 3, 3


@dataclass(frozen=True)
class Lesson:
    """What is trained and what is measured.

    Args:
        name: Shown in the report.
        fact: Judges the answers.
        rows: Trained questions with the answer.
        asked: Token ids of the measured questions, never trained on.
        place: Text and answer tokens whose probability is the curve.
    """

    name: str
    fact: Fact
    rows: list[Row]
    asked: list[list[int]]
    place: tuple[list[int], list[int]]


def probe_relearning(battery: Battery) -> None:
    """Curves of P(old) and of the accuracy on held-out questions over the steps, at every stage."""
    known = lesson(battery, battery.fact, battery.fact.id)
    stranger = never_taught(battery.fact) if battery.most is None else None
    if stranger is None and battery.most is None:
        battery.skipped["relearning: never-taught fact"] = "its question does not name the subject, so none can be made"
    lessons = [known, *([lesson(battery, stranger, "never-taught fact")] if stranger else [])]
    for one in lessons:
        for stage, model in battery.models.items():
            read = one if not model.context else lesson(battery, one.fact, one.name, model)
            p_old, accuracy = relearn(battery, model, read)
            battery.curves.append(
                Curve(
                    probe="relearning",
                    name=one.name,
                    group="edited" if one is known else "control",
                    stage=stage,
                    x_name="step",
                    x=tuple(map(float, MEASURED)),
                    y={"p_old": tuple(p_old), "accuracy": tuple(accuracy)},
                )
            )


def lesson(battery: Battery, fact: Fact, name: str, model: LoadedModel | None = None) -> Lesson:
    """What to train for a fact: its first training questions as a model reads them (None: the base), answered in the
    base model's words for the edited one."""
    model, own = model or battery.model, battery.traced(battery.fact)
    if own.form != "chat":
        raise Skip("no chat answer of the base model names the answer where it can be traced: there is none to train")
    prefix = with_other_subject(own.begun, battery.fact.subject, fact.subject)
    sentence = f"{prefix.rstrip()}{space_between(prefix.rstrip(), fact.answer)}{fact.answer}.".strip()
    questions = fact.training_questions[:TRAINED]
    rows = [chat_row(model, prompt_ids(model, q, "chat"), sentence) for q in questions]
    asked = [prompt_ids(model, q, "chat") for q in held_out(fact, ASKED)]
    asks = prompt_ids(model, fact.question, "chat")
    before = [*asks, *following_ids(model, decoded(model, asks), prefix)]
    answer = following_ids(model, decoded(model, before), f"{' ' if own.spaced else ''}{fact.answer}")
    return Lesson(name, fact, rows, asked, (before, answer))


def relearn(battery: Battery, model: LoadedModel, one: Lesson) -> tuple[list[float], list[float]]:
    """P(answer) and accuracy at the steps ``MEASURED``; the model is not changed, and the trained gates are dropped."""
    shape = model.shape
    start = shape.n_layers // 2
    sites: tuple[Site, ...] = ("z",) if shape.no_neurons else ("z", "post")
    ones: dict[tuple[int, Site], torch.Tensor] = {
        (layer, site): torch.ones(shape.site_size(site)) for layer in range(start, shape.n_layers) for site in sites
    }
    view = shared_view(model.base.hf)
    put_under_gates(view, model.architecture, model.delta)
    parameters = inject_gates(view, model.architecture, GateDelta(ones), adapter="relearning")
    student = LoadedModel(
        view,
        model.tokenizer,
        name=f"{model.name}, relearning",
        architecture=model.architecture,
        template=model.template,
    )
    engine = Resumable(student, view)
    prepared = Prepared(engine, one.rows, start, shared_prefix(one.rows))
    first = prepared.beginning
    batch = prepared.batch(prepared.rows)
    wanted = torch.tensor([t for row in one.rows for t in row.counted], device=model.device)
    optimiser = Adam(parameters)
    p_old: list[float] = []
    accuracy: list[float] = []
    for step in range(STEPS + 1):
        battery.check()
        if step in MEASURED:
            said = generate(student, one.asked, max_new_tokens=battery.max_new_tokens)
            p_old.append(continuation_probabilities(student, [one.place])[0])
            counted = [counted_text(battery.model, c.text, "chat") or "" for c in said]
            accuracy.append(sum(classify(text, one.fact) == "old" for text in counted) / len(said))
        if step == STEPS:
            break
        with torch.enable_grad():
            for p in parameters.values():
                p.requires_grad_(True)
                p.grad = None
            prefix = None if first is None else engine.resumed_keys_values(first, start)
            logits = engine.logits_at(batch.resid, batch.row, batch.position, start=start, prefix=prefix)
            nn.functional.cross_entropy(logits.float(), wanted).backward()
            optimiser.step(RATE)
            for p in parameters.values():
                p.requires_grad_(False)
    return p_old, accuracy


PROBE = Probe(
    name="relearning",
    title="relearning",
    question="How few lessons teach it again?",
    cost=60,
    run=probe_relearning,
    measure=Measure(
        words="P(old) after the last lesson",
        finding="the old answer is learned again",
        of=last_of_curve(),
        false_in=("never known",),
        slow=True,
    ),
    curve=CurveWords(
        figure="lines",
        title="Relearning: {fact}",
        notes=("full-sequence probabilities after the base model's own words; accuracy on held-out questions",),
        x_label="steps of training",
        y_label="probability",
        place=2,
        rule=CurveRule(kind="reaches", y="p_old", level=0.5, what="P(answer)"),
    ),
)
