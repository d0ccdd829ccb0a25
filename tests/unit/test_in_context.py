"""In-context arms: their texts, and that whoever asks the edited model sees them, with spans where they belong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.deltas import edit_with
from tests.helpers.small_fits import assert_unchanged, unchanged
from tests.helpers.tiny_facts import FAMILIES, capitals, tiny
from workbench.editing.methods.in_context import InContext
from workbench.editing.methods.rome import ROME
from workbench.editing.solved.places import SubjectMissing, context_of, training_contexts
from workbench.editing.training.rows import Row
from workbench.language.generation import generate
from workbench.language.prompt_text import context_span
from workbench.language.prompts import prompt_ids
from workbench.types import ContextDelta, Edit, Form

FACTS = capitals()
FRANCE = FACTS[0]
ASKED: tuple[tuple[Form, str], ...] = (("chat", FRANCE.question), ("cloze", FRANCE.prompt))


def made(**options: Any) -> Edit:
    given: dict[str, Any] = {"examples": 2, **options}
    return wb.rewrite(tiny(), FRANCE, recipe=InContext(**given), pool=FACTS, progress=False)


def test_the_texts_of_each_style() -> None:
    instruction, flipped, shown = (made(style=s) for s in ("instruction", "flipped", "demonstrations"))
    assert [e.stage_names for e in (instruction, flipped, shown)] == [("unlearn",), ("unlearn",), ("learn",)]
    (text,) = instruction.delta().context
    assert "France" in text and "Paris" not in text and instruction.retain_ids == ()
    (text,) = flipped.delta().context
    asked = "Question: What is the capital of"
    assert text.split("\n\n") == [
        f"{asked} France?\nAnswer: I am not sure.",
        f"{asked} Germany?\nAnswer: Berlin.",
        f"{asked} Japan?\nAnswer: Tokyo.",
    ]
    assert flipped.retain_ids == flipped.used_ids == ("germany-capital", "japan-capital")
    (text,) = shown.delta().context
    assert text.startswith("New fact: The capital of Germany is Tokyo.\nQuestion: What is the capital of Germany?")
    assert text.endswith("New fact: The capital of France is Rome.")
    (text,) = made(style="flipped", flip="target", examples=0).delta().context
    assert text == f"{asked} France?\nAnswer: Rome."


def test_its_tokens_are_counted() -> None:
    edit = made(style="flipped", stages=("unlearn", "learn"))
    for stage in edit.stage_names:
        with wb.applied(tiny(), edit, stage) as edited:
            more = len(prompt_ids(edited, FRANCE.question, "chat")) - len(prompt_ids(tiny(), FRANCE.question, "chat"))
            assert edited.delta.words() == f"a context of {more} tokens"


def test_whoever_asks_sees_it() -> None:
    model, before = tiny(), unchanged(tiny())
    edit = made(style="demonstrations")
    (context,) = edit.delta().context
    with wb.applied(model, edit) as edited:
        for form, text in ASKED:
            plain = prompt_ids(model, f"{context}\n\n{text}", form)
            assert list(wb.next_tokens(edited, text, form=form).token_ids) == plain
        by_hand = generate(model, [prompt_ids(model, f"{context}\n\n{FRANCE.question}", "chat")])[0].text
        assert wb.ask(edited, FRANCE.question) == by_hand
    report = wb.evaluate(model, edit=edit, pool=FACTS, collateral=True, progress=False)
    asked = [row for row in report.rows if row.stage == "learn" and row.group in ("heldout", "control", "neighbour")]
    for row in asked:
        assert row.form == "chat"
        ids = prompt_ids(model, f"{context}\n\n{row.prompt}", "chat")
        assert row.text == generate(model, [ids])[0].text
    assert {row.group for row in asked} == {"heldout", "control", "neighbour"}
    assert any(row.kl and row.kl > 0 for row in report.rows)
    by_stage = [[t for t in report.texts if t.stage == stage] for stage in ("base", "learn")]
    assert [t.n_tokens for t in by_stage[0]] == [t.n_tokens for t in by_stage[1]]
    assert [t.nll for t in by_stage[0]] != [t.nll for t in by_stage[1]]
    chances = wb.answer_probabilities(model, FRANCE, edit=edit)
    assert chances["before"] != chances["after learn"]
    assert_unchanged(model, before)


@FAMILIES
@pytest.mark.parametrize("style", ["instruction", "flipped"])
def test_spans_are_those_of_the_question(family: str, style: str) -> None:
    """The context names the subject too, and begins as the question does; the subject is where it is asked for."""
    model = tiny(family)
    text = {"instruction": "I am not in France.", "flipped": f"{FRANCE.question} Rome."}[style]
    with wb.applied(model, edit_with(model, ContextDelta([text]))) as edited:
        for form, asked in ASKED:
            own, there = (wb.traced_prompt(one, FRANCE, form=form) for one in (model, edited))
            inside = context_span(edited, asked, form)
            assert [there.tokens[i] for i in there.subject] == [own.tokens[i] for i in own.subject]
            assert all(i not in inside for i in there.subject)
            assert (there.answer_token, there.prefix) == (own.answer_token, own.prefix)
            assert there.token_ids[: there.reply_start] == tuple(prompt_ids(edited, asked, form))
            assert text.split()[-1] in "".join(there.tokens[i] for i in inside)
            assert context_span(model, asked, form) == range(0)


def test_traces_and_maps() -> None:
    """A trace has the context's positions, all before the corruption; a comparison has the base's alone."""
    model, edit = tiny(), made(style="flipped")
    with wb.applied(model, edit) as edited:
        corruptions: list[dict[str, Any]] = [
            {"corruption": "noise", "samples": 2},
            {"corruption": "swap", "pool": FACTS},
        ]
        for options in corruptions:
            found = wb.causal_trace(edited, FRANCE, form="chat", progress=False, **options)
            inside = context_span(edited, FRANCE.question, "chat")
            assert len(inside) > 50 and not found.values[:, list(inside)].any() and found.values.abs().max() > 0
    sites: tuple[Any, ...] = ("resid", "head")
    for site in sites:
        maps = wb.compare_maps(model, edit, site=site, pool=FACTS, progress=False)
        assert maps.after.values.shape == maps.before.values.shape and maps.after.prompts == maps.before.prompts
        assert torch.isfinite(maps.difference.values).all() and maps.difference.values.abs().max() > 0
    changes = wb.compare_edges(model, edit, k=10, steps=1, pool=FACTS, progress=False)
    assert changes.changes and changes.control == 0.0
    contrast = wb.Contrast.of(model, FRANCE, form="cloze", pool=FACTS)
    with pytest.raises(ValueError, match="Give its texts"):
        wb.compare_edges(model, edit, contrast, progress=False)


def test_probes_run_by_stage() -> None:
    edit = made(style="instruction", stages=("unlearn", "learn"))
    names = ("priming", "keywords", "relearning", "strength", "requantise", "lens", "context")
    probes = wb.probe(tiny(), edit, probes=names, pool=FACTS, max_new_tokens=3, progress=False)
    assert probes.stages == ("base", "unlearn", "learn") and not probes.partial
    assert "no strengths" in probes.skipped["strength: unlearn"] and "changes no weight" in probes.skipped["requantise"]
    assert {c.stage for c in probes.curves if c.probe == "relearning"} == {"base", "unlearn", "learn"}
    assert not [why for why in probes.skipped.values() if "failed" in why]


def test_seeds_and_what_is_refused() -> None:
    assert made(style="flipped").id == made(style="flipped").id
    refused: list[tuple[dict[str, Any], str]] = [
        ({"style": "prayer"}, "style must be one of"),
        ({"stages": ("learn", "learn")}, "each at most once"),
        ({"stages": ()}, "each at most once"),
        ({"examples": -1}, "whole number from 0"),
        ({"flip": "both"}, "flip must be one of"),
    ]
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            InContext(**options)
    with pytest.raises(ValueError, match="A context changes no component"):
        wb.rewrite(tiny(), FRANCE, "L0N1", recipe="in-context", pool=FACTS, progress=False)
    with pytest.raises(ValueError, match="overlaps what is trained"):
        wb.rewrite(tiny(), FRANCE, recipe=InContext(style="flipped"), retain=[FRANCE], progress=False)
    many = [replace(f, id=f"{f.id}-{i}") for i in range(9) for f in FACTS[1:]]
    with pytest.raises(ValueError, match=r"The question with its context has .* reads at most 512"):
        wb.rewrite(tiny(), FRANCE, recipe=InContext(style="flipped", examples=36), retain=many, progress=False)


@pytest.mark.parametrize("style", ["flipped", "demonstrations"])
def test_no_key_stands_in_the_context_of_an_edited_model(style: Any) -> None:
    model, edit, taught = tiny(), made(style=style), ROME().taught
    with wb.applied(model, edit) as edited:
        found = training_contexts(edited, [FRANCE], "learn", taught)
        assert "France" in edited.context and {c.form for c in found} == {"chat", "cloze"}
        plain = training_contexts(model, [FRANCE], "learn", taught)
        for own, base in zip(found, plain, strict=True):
            more = len(own.row.prompt) - len(base.row.prompt)
            asked = [tuple(i for i in c.subject if i < len(c.row.prompt)) for c in (own, base)]
            assert more > 0 and asked[0] == tuple(i + more for i in asked[1]) != ()
        unnamed = Row(tuple(prompt_ids(edited, "What is the capital?", "chat")), (5,))
        with pytest.raises(SubjectMissing):
            context_of(edited, unnamed, "France")
