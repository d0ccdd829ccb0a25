"""The probe panel through the messages a browser sends: what is clicked equals what is scripted."""

from __future__ import annotations

import base64
import threading
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

import workbench
from tests.helpers.panels import EVIL, control, descendants, let_go, shown, until
from tests.helpers.pictures import data_of
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, edit_of, knowing, some_gates
from tests.helpers.wire import click, enter
from workbench.editing.applied import applied
from workbench.editing.methods.table import Recipe
from workbench.language import prompts as prompts_module
from workbench.language.generation import Completion
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.probing.probe import probe
from workbench.probing.table import PROBES
from workbench.tracing.lens import lens
from workbench.types import Edit, Fact, FactSet, ProbeReport, TracedPrompt
from workbench.widgets.probe import panel as probe_panel
from workbench.widgets.probe import reader as prompt_reader
from workbench.widgets.probe import views as probe_views
from workbench.widgets.probe.panel import ProbePanel
from workbench.widgets.shared import markup
from workbench.widgets.shared.voice import person

FRANCE = capitals()[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


def an_edit(fact: Fact = FRANCE) -> Edit:
    return edit_of(tiny(), some_gates(tiny(), (1, "post")), some_gates(tiny(), (2, "z"), seed=1), fact=fact)


def panel(edit: Edit | None = None, **options: Any) -> ProbePanel:
    given = {"pool": capitals(), "max_new_tokens": 4, "probes": ("lens", "context", "strength")}
    return ProbePanel(tiny(), edit or an_edit(), **{**given, **options})


def opened(view: ProbePanel, name: str) -> None:
    """A press of the button in a probe's line."""
    tip = f"Texts and curves of the probe: {PROBES[name].title}"
    (button,) = (w for w in descendants(view) if getattr(w, "tooltip", None) == tip)
    assert not button.disabled
    click(button)


class Held:
    """In place of the battery: waits until it is let go, and sees what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, report: ProbeReport | None = None) -> None:
        self.go, self.calls, self.report = threading.Event(), 0, report
        self.given: dict[str, Any] = {}
        monkeypatch.setattr(probe_panel, "probe", self)

    def __call__(self, *_: Any, cancel: threading.Event, **options: Any) -> Any:
        self.calls += 1
        self.given = options
        if not let_go(self.go, cancel) and self.report:
            return replace(self.report, partial="cancelled during context")
        return self.report


def test_clicked_equals_scripted_and_so_does_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    edit, before = an_edit(), tiny().fingerprint
    view = panel(edit)
    enter(control(view, "strength of the edit"), value=False)
    assert view.probes == ("lens", "context")
    click(control(view, "Run"))
    assert view.job is not None
    report = view.job.wait(60)
    scripted = probe(tiny(), edit, probes=["lens", "context"], pool=capitals(), max_new_tokens=4, progress=False)
    assert report is view.report
    assert report.rows == scripted.rows and report.rates == scripted.rates
    assert report.lens().to_frame().equals(scripted.lens().to_frame())
    assert (view.error, tiny().fingerprint) == (None, before)
    assert "back into context" in shown(view)

    monkeypatch.setattr(workbench, "load_model", lambda *args: tiny())
    monkeypatch.setattr(workbench, "load_edit", lambda *args: edit)
    names: dict[str, Any] = {}
    exec(view.code, names)
    assert names["probes"].rows == report.rows


def test_a_row_shows_its_texts_side_by_side_and_its_layers() -> None:
    view = panel(probes=("context",))
    view.run().wait(60)
    assert view.report is not None
    rows = control(view, "Prompt")
    assert len(rows.options) == sum(r.stage == "base" for r in view.report.rows)
    enter(rows, index=1)
    chosen = rows.value
    said = [
        r.text for r in view.report.rows if (r.prompt, r.kind, r.group) == (chosen.prompt, chosen.kind, chosen.group)
    ]
    assert len(said) == 3
    assert all(text in shown(view) for text in said if text.isalnum())
    enter(rows, index=0)
    asked = rows.value
    click(control(view, "Lens"))
    assert view.looking is not None
    found = view.looking.wait(60)
    assert [x.stage for x in found] == ["base", "unlearn", "learn"]
    until(lambda: "readings = " in view.code)
    assert view.report is not None and view.report.control is not None
    fact = replace(
        FRANCE if asked.group == "edited" else view.report.control, question=asked.prompt, paraphrases=(), heldout=()
    )
    with applied(tiny(), an_edit(), "learn") as edited:
        assert lens(edited, fact, form="chat").probabilities == found[-1].probabilities
    assert "P(first token)" in shown(view)


def test_a_prompt_without_the_answer_says_why_it_has_no_lens() -> None:
    """The model does not answer the statement's wording, so there is no place to read: shown, and kept on .error."""
    view = panel(probes=("steps",))
    view.run().wait(60)
    rows = control(view, "Prompt")
    bad = next(i for i, (_, r) in enumerate(rows.options) if not r.informative and r.fact_id == FRANCE.id)
    enter(rows, index=bad)
    click(control(view, "Lens"))
    assert view.looking is not None
    with pytest.raises(ValueError, match="does not contain 'Paris'"):
        view.looking.wait(60)
    assert view.error is not None and "does not contain" in str(view.error) and view.message == person(view.error)
    assert markup.text(view.message) in shown(view)


def test_the_lens_reads_the_refusal_that_the_edit_teaches(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit that breaks the sentence off teaches "..." there, not the fact's own refusal."""
    edit = replace(an_edit(), recipe=Recipe())
    view = panel(edit, probes=("context",))
    view.run().wait(60)
    rows = control(view, "Prompt")
    at = next(i for i, (_, r) in enumerate(rows.options) if r.informative and r.group == "edited")
    enter(rows, index=at)
    asked = replace(FRANCE, question=rows.value.prompt, paraphrases=(), heldout=(), cloze_paraphrases=())
    monkeypatch.setattr(
        prompt_reader, "answers_at", lambda place, fact, style: {"refusal": " Rome? No" if style == "own" else ""}
    )
    click(control(view, "Lens"))
    assert view.looking is not None
    found = view.looking.wait(60)
    assert found[0].tokens["refusal"] == lens(tiny(), asked, form="chat", refusal=" Rome? No").tokens["refusal"]
    assert found[0].tokens["refusal"] != lens(tiny(), asked, form="chat").tokens["refusal"]
    until(lambda: "refusal=' Rome? No'" in view.code)
    assert f"Layer by layer: {rows.value.prompt}" in shown(view) and "Rank after the last layer" in shown(view)


def test_a_prompt_without_the_subject_says_why_it_has_no_lens() -> None:
    view = panel(an_edit(replace(FRANCE, cloze_paraphrases=("Its capital is",))), probes=("adversarial",))
    view.run().wait(60)
    rows = control(view, "Prompt")
    enter(rows, index=next(i for i, (_, r) in enumerate(rows.options) if r.prompt == "Its capital is"))
    click(control(view, "Lens"))
    assert view.looking is None
    assert "The lens cannot follow this prompt" in shown(view) and "subject" in shown(view)


def test_a_cloze_is_read_as_it_was_asked_and_what_the_lens_cannot_read_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_of: list[tuple[str, Any]] = []

    def place(model: LoadedModel, fact: Fact, *, form: Any, **_: Any) -> TracedPrompt:
        asked_of.append((fact.prompt, form))
        return traced_prompt(model, FRANCE)

    monkeypatch.setattr(prompt_reader, "traced_prompt", place)
    monkeypatch.setattr(prompt_reader, "lens", lambda model, *_, **__: lens(model, FRANCE))
    cloze = replace(FRANCE, cloze_paraphrases=("The seat of France is",))
    view = panel(an_edit(cloze), probes=("adversarial", "requantise"))
    view.run().wait(60)
    opened(view, "adversarial")
    rows = control(view, "Prompt")
    asked = next(i for i, (_, r) in enumerate(rows.options) if r.form == "cloze" and r.group == "edited")
    enter(rows, index=asked)
    click(control(view, "Lens"))
    assert view.looking is not None
    view.looking.wait(60)
    assert asked_of == [("The seat of France is", "cloze")]
    opened(view, "requantise")
    enter(rows, index=0)
    click(control(view, "Lens"))
    assert "rounded" in shown(view)


def saying(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """The base gives this answer wherever a text to read is looked for; the small model knows few wordings."""

    def greedy(model: LoadedModel, prompts: Any) -> list[Completion]:
        ids = tuple(model.token_ids(f" {answer}"))
        return [Completion(model.tokenizer.decode(list(ids)), ids) for _ in prompts]

    monkeypatch.setattr(prompts_module, "greedy_answers", greedy)


def test_the_lens_goes_on_from_a_reply_that_was_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    saying(monkeypatch, "Paris")
    view = panel(probes=("adversarial",))
    view.run().wait(60)
    rows = control(view, "Prompt")
    begun = next(i for i, (_, r) in enumerate(rows.options) if r.start and r.group == "edited")
    enter(rows, index=begun)
    click(control(view, "Lens"))
    assert view.looking is not None
    found = view.looking.wait(60)
    row = rows.value
    assert found[0].prompt.prefix.startswith(row.start) and row.start in found[0].prompt.text
    assert found[0].probabilities["old"] == lens(tiny(), FRANCE, form="chat", start=row.start).probabilities["old"]
    until(lambda: f"start={row.start!r}" in view.code)


def test_the_lens_follows_what_a_prompt_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A two-hop question without the subject is read with the path's own ends, one that must stay with its answer."""
    about = {"relation": "city-country", "prompt": "The country that Lyon is in is", "question": "Where is Lyon?"}
    lyon = replace(capital("Lyon", "France", "Spain"), id="lyon-country", **about)
    view = panel(pool=FactSet([*capitals(), lyon], name="with Lyon"), probes=("interconnected", "priming"))
    view.run().wait(60)
    rows = control(view, "Prompt")
    for name, wanted in (("interconnected", "multi-hop"), ("priming", "neighbour")):
        opened(view, name)
        at = next(i for i, (_, r) in enumerate(rows.options) if r.kind == wanted)
        enter(rows, index=at)
        row = rows.value
        saying(monkeypatch, row.old)
        click(control(view, "Lens"))
        assert view.looking is not None
        found = view.looking.wait(60)
        asked = replace(FRANCE, id=row.fact_id, question=row.prompt, answer=row.old, target=row.new)
        assert found[0].tokens["old"].strip() == row.old and found[0].tokens["new"].strip() == row.new
        for name in ("old", "new"):
            assert found[0].probabilities[name] == lens(tiny(), asked, form="chat").probabilities[name]
        assert [x.stage for x in found] == ["base", "unlearn", "learn"]


def test_a_reading_that_comes_late_is_not_shown_under_another_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    view, go = panel(probes=("context",)), threading.Event()
    view.run().wait(60)
    monkeypatch.setattr(prompt_reader, "lens", lambda *a, **k: go.wait(20) and lens(*a, **k))
    rows = control(view, "Prompt")
    right = next(i for i, (_, r) in enumerate(rows.options) if r.informative)
    enter(rows, index=right)
    click(control(view, "Lens"))
    enter(rows, index=(right + 1) % len(rows.options))
    go.set()
    assert view.looking is not None
    view.looking.wait(60)
    until(lambda: not control(view, "Lens").disabled)
    assert "Layer by layer" not in shown(view) and "readings = " not in view.code


def test_curves_are_drawn_and_the_code_is_that_of_the_report() -> None:
    view = panel(probes=("strength", "keywords"))
    assert "probes=['keywords', 'strength']" in view.code
    view.run().wait(60)
    opened(view, "strength")
    assert "strength of the edit, after learn: probability" in shown(view)
    opened(view, "keywords")
    assert "what leaving one out takes" in shown(view)
    view.probes = ("lens",)
    assert "probes=['keywords', 'strength']" in view.code, "what is in sight"
    with pytest.raises(ValueError, match=r"got \['lenses'\]"):
        view.probes = ("lenses",)
    assert view.probes == ("lens",)


def test_cancel_keeps_what_was_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    real = probe(tiny(), an_edit(), probes="context", pool=capitals(), max_new_tokens=4, progress=False)
    held = Held(monkeypatch, real)
    view = panel()
    click(control(view, "Run"))
    assert control(view, "Run").disabled and not control(view, "Cancel").disabled
    first = view.job
    assert view.run() is first and held.calls == 1, "a second click changes nothing"
    assert "already" in shown(view)
    click(control(view, "Cancel"))
    assert view.job is not None
    view.job.wait(20)
    assert view.report is not None and view.report.partial == "cancelled during context"
    assert "finished answers are kept" in shown(view)
    assert not control(view, "Run").disabled and control(view, "Cancel").disabled
    assert held.given["probes"] == ["lens", "context", "strength"]


def test_errors_are_shown_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ValueError(EVIL)

    monkeypatch.setattr(probe_panel, "probe", fail)
    view = panel()
    with pytest.raises(ValueError, match="img"):
        view.run().wait(20)
    assert isinstance(view.error, ValueError)
    assert "&lt;img" in shown(view)
    assert not control(view, "Run").disabled


def test_no_probe_ticked_fails_with_the_list() -> None:
    view = panel(probes=())
    with pytest.raises(ValueError, match="probes must be some of"):
        view.run().wait(20)


def test_untrusted_texts_are_shown_as_texts() -> None:
    fact = capital("France", "Paris", "Rome", refusal=EVIL, heldout=(f"{EVIL} Where is the capital of France?",))
    view = panel(an_edit(fact), probes=("context", "lens"))
    view.run().wait(60)
    opened(view, "context")
    evil = [i for i, (_, r) in enumerate(control(view, "Prompt").options) if EVIL in r.prompt]
    assert evil
    for index in evil:
        enter(control(view, "Prompt"), index=index)
        assert "&lt;img src=x" in shown(view), index
    assert EVIL not in shown(view)
    assert repr(view) == "ProbePanel(france-capital: lens, context, done)"


def test_bad_input() -> None:
    another = knowing(tiny_llama(seed=1, tied=False), capitals())
    with pytest.raises(ValueError, match="This edit was fitted on"):
        ProbePanel(another, an_edit())
    with applied(tiny(), an_edit()) as edited, pytest.raises(ValueError, match="pass the base model"):
        ProbePanel(edited, an_edit())
    with pytest.raises(ValueError, match="does not hold the fact 'spain-capital'"):
        panel(fact=capitals()[2])
    with pytest.raises(ValueError, match=r"got \['lenses'\]"):
        panel(probes=("lenses",))
    assert panel(probes=tuple(PROBES)).probes == tuple(PROBES)


def test_where_no_widget_is_drawn_there_is_a_picture() -> None:
    data = panel()._repr_mimebundle_()
    assert data["text/plain"] == "ProbePanel(france-capital: lens, context, strength, not run)"
    assert "image/png" in data


def test_a_snapshot_gives_the_rates_once_there_are_some() -> None:
    view = panel(probes=("interconnected",))
    card = data_of(view.snapshot())
    assert card == base64.b64decode(view._repr_mimebundle_()["image/png"])
    report = view.run().wait(60)
    assert view.snapshot().data == base64.b64decode(view._repr_mimebundle_()["image/png"]) != card
    old = report.rate("interconnected")
    assert probe_views.card_lines(report) == [f"interconnected facts: old answer {old.value:.2f} (n={old.n})"]
