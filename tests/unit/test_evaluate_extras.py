"""What an evaluation measures besides greedy answers: samples, long text, the floor, sealed wordings, kinds of loss."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.scripted import run
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, edit_of, knowing, some_gates
from tests.helpers.tiny_tokenizers import sentencepiece
from workbench.editing.applied import applied
from workbench.evaluation.answering import Answering, Ask
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.extras import sample_rows
from workbench.evaluation.floor import FLOOR, permuted_of_equal_kl
from workbench.evaluation.long_text import CONTEXT, given_text, long_text_rows, own_text, stretches_of
from workbench.evaluation.questions import Question
from workbench.facts.sealed_wordings import sealed_wordings
from workbench.language.generation import Completion
from workbench.language.prompts import prompt_ids
from workbench.language.sampling import GumbelNoise, sample
from workbench.language.scoring import continuation_nll
from workbench.language.tokens import beginning
from workbench.models.load import load_model
from workbench.types import ContextDelta, Delta, Edit, EditStage, EvalReport, FactSet, LowRankDelta, TextRow
from workbench.types.rates import rates_of
from workbench.types.report import AnswerRow, SampleRow

FACTS = capitals()
ASKS = [Ask("chat", fact.question) for fact in FACTS]


def model() -> wb.LoadedModel:
    return knowing(tiny_llama(tied=False), FACTS)


# What stands in the place of what was forgotten


@pytest.mark.usefixtures("script")
def test_the_table_says_what_stands_in_the_old_answers_place() -> None:
    report = run()
    frame = report.to_frame()
    asked = frame[(frame.group == "heldout") & (frame.stage == "learn")].set_index("prompt").forgotten.to_dict()
    assert asked == {"Q1?": "new", "Q2?": "not", "Q3?": "gibberish", "Q4?": ""}  # the base never answered Q4 so
    assert set(frame[(frame.group != "heldout") | (frame.stage == "base")].forgotten) == {""}
    listed = report.rates_frame().to_dict("records")
    (refused,) = [one for one in listed if (one["stage"], one["rate"]) == ("unlearn", "forget_refusal")]
    assert (refused["value"], refused["n"]) == (pytest.approx(2 / 3), 3) and 0 < refused["low"] < refused["high"] < 1
    assert len(listed) == sum(map(len, report.rates.values()))


# Controls of retained relations and of others


def test_controls_of_retained_relations_are_apart() -> None:
    def row(fact: str, relation: str, stage: str, label: Any) -> AnswerRow:
        given: dict[str, Any] = {"form": "chat", "prompt": fact, "text": "", "nll": 1.0}
        return AnswerRow(fact_id=fact, relation=relation, group="control", stage=stage, label=label, **given)

    rows = [row(f, r, "base", "old") for f, r in (("a", "city"), ("b", "city"), ("c", "river"))]
    rows += [row("a", "city", "learn", "old"), row("b", "city", "learn", "other"), row("c", "river", "learn", "old")]
    rates = rates_of(rows, ("base", "learn"), lambda text: False, retained=("city",))["learn"]
    assert (rates["control_retained"].value, rates["control_retained"].n) == (0.5, 2)
    assert (rates["control_other"].value, rates["control_other"].n) == (1.0, 1)
    assert "control_other" not in rates_of(rows, ("base", "learn"), lambda text: False)["learn"]


# Whether unlearning reached its own target


def test_every_stage_says_how_likely_the_refusal_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    base = model()
    edit = edit_of(base, gates(base), gates(base), fact=FACTS[0])
    report = evaluate(base, edit=edit, pool=FACTS, controls=FACTS[1:3], progress=False)
    plain = wb.answer_probabilities(base, FACTS[0], edit=edit)
    for stage, named in zip(report.stages, plain.values(), strict=True):
        old, new, refusal = named.values()
        found = report.probabilities[stage]["france-capital"]
        assert found == {"old": pytest.approx(old), "new": pytest.approx(new), "refusal": pytest.approx(refusal)}
        assert (report.rate("p_refusal", stage).value, report.rate("p_refusal", stage).n) == (pytest.approx(refusal), 1)
    assert EvalReport.load(report.save(tmp_path / "r.json")).probabilities == report.probabilities
    learned = edit_of(base, gates(base), fact=FACTS[0])
    alone = evaluate(base, edit=learned, pool=FACTS, controls=FACTS[1:3], progress=False)
    assert not alone.probabilities and "p_refusal" not in alone.rates["learn"]


# Samples


def test_samples_are_of_the_models_own_distribution() -> None:
    """Of one token: how often each comes, against the softmax."""
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    drawn = [int(GumbelNoise([seed])(None, scores).argmax()) for seed in range(4000)]
    counted = torch.bincount(torch.tensor(drawn), minlength=4) / len(drawn)
    assert torch.allclose(counted, scores[0].softmax(-1), atol=0.025)


def test_a_sample_depends_on_seed_and_prompt_alone() -> None:
    base = model()
    prompts = [prompt_ids(base, fact.question, "chat") for fact in FACTS]
    together = sample(base, prompts, 3, max_new_tokens=4, seed=1)
    alone = sample(base, [prompts[2]], 3, max_new_tokens=4, batch_size=1, seed=1)
    assert [one.token_ids for one in together[2]] == [one.token_ids for one in alone[0]]
    flat = knowing(tiny_llama(tied=False), FACTS)
    with torch.no_grad():
        flat.hf.lm_head.weight.zero_()  # every token is as likely
    drawn = [{one.token_ids for one in sample(flat, prompts[:1], 8, max_new_tokens=4, seed=s)[0]} for s in (1, 2)]
    assert len(drawn[0]) > 4 and drawn[0] != drawn[1]
    with pytest.raises(ValueError, match="n must be 1 or more samples, got 0"):
        sample(base, prompts, 0)


@pytest.mark.usefixtures("script")
def test_leakage_counts_prompts_of_which_any_sample_holds_the_old_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"base": ["Paris", "x"], "unlearn": ["x", "y"], "learn": ["Rome", "Rome, not Paris"]}

    def samples(view: Any, prompts: Any, n: int, **options: Any) -> list[list[Completion]]:
        assert (n, options["seed"]) == (2, 5)
        stage = view.applied[-1].stage if view.applied else "base"
        only_first = [said[stage], *[["x", "x"]] * (len(prompts) - 1)]
        return [[Completion(text, ()) for text in texts] for texts in only_first]

    monkeypatch.setattr("workbench.evaluation.extras.sample", samples)
    report = run(samples=2, seed=5)
    # Four held-out questions; the base answers three of them with the old answer. Only the first one leaks.
    found = {stage: (report.rate("leak", stage).value, report.rate("leak", stage).n) for stage in report.stages}
    assert found == {"base": (1 / 3, 3), "unlearn": (0, 3), "learn": (1 / 3, 3)}
    assert [row.leaks for row in report.samples if row.stage == "learn"] == [True, False, False, False]
    assert report.samples[0].texts == ("Paris", "x") and report.samples[0].old == (True, False)
    assert "leak" not in run().rates["learn"]


def test_an_echo_of_the_subject_is_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the class of an answer: "Mexico" inside "Mexico City" is not the old answer."""
    city = capital(
        "Mexico City", "Mexico", "Rome", question="Where is Mexico City?", paraphrases=(), heldout=("Where?",)
    )
    said = [Completion("Mexico City is big", ()), Completion("In Mexico", ())]
    monkeypatch.setattr("workbench.evaluation.extras.sample", lambda *a, **o: [said])
    asked = Question(city, "heldout", Ask("chat", "Where?"), city)
    (row,) = sample_rows(Answering(model()), model(), [asked], "base", 2, 0)
    assert row.old == (False, True)


def test_bad_options() -> None:
    for name, value in (("samples", 1.5), ("max_controls", -1), ("max_controls", 2.5)):
        wrong: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=f"{name} must be a whole number, 0 or more, got {value}"):
            evaluate(model(), FACTS[:1], pool=FACTS, progress=False, **wrong)
    with pytest.raises(ValueError, match=r"samples must be a whole number, 0 or more, got -1"):
        evaluate(model(), FACTS[:1], samples=-1, pool=FACTS, progress=False)
    with pytest.raises(ValueError, match=r"wordings must be one of \('own', 'sealed'\), got 'secret'"):
        evaluate(model(), FACTS[:1], wordings="secret", pool=FACTS)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"floor=True permutes an edit, and there is none"):
        evaluate(model(), FACTS[:1], floor=True, pool=FACTS, progress=False)
    with pytest.raises(ValueError, match=r"prose= is a list of documents; write \[text\]"):
        evaluate(model(), FACTS[:1], prose="Once upon a time", pool=FACTS)


# Long text


def test_documents_are_cut_into_windows_and_read_whole() -> None:
    base = model()
    text = " ".join(f"The capital of {fact.subject} is {fact.answer}." for fact in FACTS) + " Madrid" * 40
    windows = given_text(base, [text, "too short"], context=40)
    ids = base.token_ids(text)
    read = [token for before, tokens in windows.rows for token in (*before, *tokens)]
    assert read == ids[: len(read)] and len(ids) - len(read) < 32 and len(windows.rows) >= 2
    rows = long_text_rows(base, "base", windows)
    for row, (before, tokens) in zip(rows, windows.rows, strict=True):
        assert row.nll == pytest.approx(continuation_nll(base, [before], [tokens])[0], rel=1e-4)
        assert (row.n_tokens, row.source) == (len(tokens), "given")
    with pytest.raises(ValueError, match="holds no document of at least 32 tokens"):
        given_text(base, ["short"])
    cut = stretches_of(base, 10, [text], context=40)
    assert cut is not None and len(cut.rows) == 1
    for bad in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"text_context must be a whole number of at least 1, got {bad}"):
            stretches_of(base, None, [text], context=bad)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match=f"text_tokens must be a whole number of at least 1, got {bad}"):
            stretches_of(base, bad, [text], context=40)  # pyright: ignore[reportArgumentType]


def test_a_context_stands_after_one_bos(monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_model(tiny_llama(), tokenizer=sentencepiece(), name="tiny")
    (bos,), text = beginning(base), "The capital of France is Paris. " * 8
    windows = given_text(base, [text], context=60)
    read: list[list[int]] = []
    monkeypatch.setattr(
        "workbench.evaluation.long_text.continuation_nll", lambda m, p, c, **_: read.extend(p) or [1.0] * len(c)
    )
    with applied(base, with_delta(base, ContextDelta(["Paris is in Italy."], [9]))) as edited:
        long_text_rows(edited, "learn", windows)
    assert read and all(before[0] == bos and before.count(bos) == 1 and len(before) > 1 for before in read)


@pytest.mark.usefixtures("script")
def test_own_text_does_not_follow_the_seed_of_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the texts of many reports can be crossed."""
    given: list[int] = []
    monkeypatch.setattr(
        "workbench.evaluation.long_text.own_text",
        lambda model, tokens, *, context, seed=0: given.append(seed) or given_text(model, ["Paris " * 60], context=40),
    )
    monkeypatch.setattr("workbench.evaluation.long_text.continuation_nll", lambda m, p, c, **_: [1.0] * len(c))
    for seed in (1, 2):
        run(text_tokens=20, seed=seed)
    assert given == [0, 0]


def test_own_text_is_written_once_and_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    base = knowing(tiny_llama(tied=False), FACTS)
    few = own_text(base, 100, context=20)
    assert few.n_tokens >= 100 and all(len(tokens) <= 20 for _, tokens in few.rows)
    monkeypatch.setattr("workbench.evaluation.long_text.sample", lambda *a, **o: pytest.fail("written before"))
    assert own_text(base, 100, context=20) == few
    monkeypatch.undo()
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    more = own_text(base, few.n_tokens + 800, context=20)
    assert more.rows[: len(few.rows)] == few.rows, "more text begins with what there was"
    (path,) = (tmp_path / "own_text").iterdir()
    path.write_text("{}")
    assert own_text(base, 100, context=20) == few
    with (
        applied(base, edit_of(base, gates(base)), stage=None) as edited,
        pytest.raises(ValueError, match="base's own"),
    ):
        own_text(edited, 100)


def test_long_text_has_rates_of_its_own() -> None:
    rows = [TextRow(stage=s, sentence=t, n_tokens=2, nll=n) for s, t, n in (("base", "a", 1.0), ("learn", "a", 1.5))]
    for i, (before, now) in enumerate(((2.0, 2.1), (3.0, 3.3))):
        for stage, nll in (("base", before), ("learn", now)):
            rows.append(TextRow(stage=stage, sentence=str(i), n_tokens=100, nll=nll, source="own generations"))
    rates = rates_of([], ("base", "learn"), lambda text: False, texts=rows, collateral=True)["learn"]
    assert rates["text_nll_change"].value == pytest.approx(0.5)
    assert rates["long_text_nll_change"].value == pytest.approx(0.2) and rates["long_text_nll_change"].n == 200
    assert rates["long_text_nll"].clusters == 2
    only_long = rates_of([], ("base", "learn"), lambda text: False, texts=rows)["learn"]
    assert "text_nll" not in only_long and "long_text_nll" in only_long
    assert CONTEXT >= 512


@pytest.mark.usefixtures("script")
def test_long_text_is_read_by_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.evaluation.long_text.continuation_nll", lambda m, p, c, **_: [1.0] * len(c))
    report = run(prose=["The capital of France is Paris. " * 12], text_context=40)
    assert [row.stage for row in report.texts] == [
        stage for stage in report.stages for _ in range(len(report.texts) // 3)
    ]
    settings = report.provenance["settings"]
    assert [settings[name] for name in ("samples", "text_tokens", "text_context")] == [0, None, 40]
    assert report.rate("long_text_nll_change").value == 0 and "text_nll" not in report.rates["learn"]


# The floor


def gates(base: wb.LoadedModel) -> Any:
    return some_gates(base, (1, "post"), (2, "z"))


def with_delta(base: wb.LoadedModel, delta: Delta) -> Edit:
    return replace(edit_of(base, gates(base)), stages=(EditStage("learn", delta),))


def low_rank() -> LowRankDelta:
    torch.manual_seed(3)
    return LowRankDelta({(1, "mlp.down_proj"): (torch.randn(42, 1) * 0.5, torch.randn(1, 56) * 0.5)})


@pytest.mark.parametrize("kind", ["gates", "low-rank"])
def test_a_permuted_delta_of_equal_kl(kind: str) -> None:
    base = model()
    edit = edit_of(base, gates(base))
    if kind == "low-rank":
        edit = with_delta(base, low_rank())
    floor = permuted_of_equal_kl(base, edit, ASKS, matched=0.02, seed=4)
    assert not isinstance(floor, str), floor
    assert floor.kl == pytest.approx(floor.wanted, rel=0.021) and floor.wanted > 0
    asking = Answering(base)
    with applied(base, edit) as own, applied(base, floor.edit) as permuted:
        measured = [sum(v := asking.kl(view, ASKS)) / len(v) for view in (own, permuted)]
    assert measured == [pytest.approx(floor.wanted, rel=1e-5), pytest.approx(floor.kl, rel=1e-5)]
    # The numbers are the edit's own, in another order, moved by the strength.
    own, other = edit.delta().tensors(), edit.delta().permuted(4).tensors()
    assert any(not torch.equal(own[name], other[name]) for name in own)
    assert all(torch.equal(own[name].flatten().sort()[0], other[name].flatten().sort()[0]) for name in own)
    scaled, expected = floor.edit.delta().tensors(), edit.delta().permuted(4).scaled(floor.strength).tensors()
    assert all(torch.equal(scaled[name], expected[name]) for name in scaled)


def test_what_cannot_be_permuted_is_said() -> None:
    base = model()
    why = permuted_of_equal_kl(base, with_delta(base, ContextDelta(["Paris"], [1])), ASKS)
    assert isinstance(why, str) and "cannot be permuted" in why
    same = edit_of(base, {(1, "post"): torch.ones(56)})
    assert "no strength" in str(permuted_of_equal_kl(base, same, ASKS))


def test_the_floor_is_a_stage_of_the_report() -> None:
    base = model()
    edit = edit_of(base, gates(base), gates(base), fact=FACTS[0])
    given: dict[str, Any] = {"edit": edit, "pool": FACTS, "controls": FACTS[1:3], "progress": False}
    report = evaluate(base, **given, floor=True)
    assert report.stages == ("base", FLOOR, *edit.stage_names)
    floor = report.provenance["settings"]["floor"]
    assert floor["kl"] == pytest.approx(floor["wanted"], rel=0.11) and floor["strength"] > 0
    assert {row.stage for row in report.rows} == set(report.stages)
    plain = evaluate(base, **given)
    assert {s: plain.rates[s] for s in plain.stages} == {s: report.rates[s] for s in plain.stages}


# Sealed wordings


def test_sealed_wordings_ask_nothing_that_is_trained_or_retained(monkeypatch: pytest.MonkeyPatch) -> None:
    base = model()
    secret = capital("Peru", "Lima", "Rome", "sealed", "control", relation="river")
    monkeypatch.setattr("workbench.evaluation.chosen.load_facts", lambda split=None: FactSet([secret], name="sealed"))
    monkeypatch.setattr("workbench.evaluation.evaluate.known_facts", lambda model, facts, **_: facts)
    edit = edit_of(base, gates(base), fact=FACTS[0])
    report = evaluate(base, edit=edit, pool=FACTS, wordings="sealed", progress=False)
    frames = sealed_wordings().frames
    asked = [row for row in report.rows if row.stage == "base" and row.group not in ("train", "cloze")]
    framed = {f.replace("{question}", q) for f in frames for fact in (*FACTS, secret) for q in fact.heldout}
    framed |= {*secret.heldout}
    assert {row.prompt for row in asked} <= framed
    assert {row.fact_id for row in asked if row.group == "control"} >= {"peru-capital"}
    assert len([row for row in asked if row.group == "heldout"]) == len(frames)
    one = evaluate(base, edit=edit, pool=FACTS, wordings="sealed", max_controls=1, progress=False)
    assert len([row for row in one.rows if (row.group, row.stage) == ("control", "base")]) == 1
    own = evaluate(base, edit=edit, pool=FACTS, progress=False)
    assert "peru-capital" not in {row.fact_id for row in own.rows}
    train = [[r.prompt for r in one.rows if r.group == "train"] for one in (report, own)]
    assert train[0] == train[1]
    assert report.provenance["settings"]["wordings"] == "sealed"


def test_samples_and_long_text_come_back_from_a_file(tmp_path: Path) -> None:
    base = model()
    edit = edit_of(base, gates(base), fact=FACTS[0])
    given: dict[str, Any] = {"pool": FACTS, "controls": FACTS[1:3], "progress": False}
    report = evaluate(base, edit=edit, **given, samples=2, prose=["The capital of France is Paris. " * 12])
    again = EvalReport.load(report.save(tmp_path / "report.json"))
    assert again.samples == report.samples and isinstance(again.samples[0], SampleRow)
    assert again.texts == report.texts and again.retained_relations == report.retained_relations
    assert not math.isnan(report.rate("long_text_nll").value)
