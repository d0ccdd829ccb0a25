"""What a causal trace is taken of: the text, the traced token, the swap partner; and which options are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import by_hand, capital, knowing
from tests.helpers.traces import FACTS, FRANCE, ITALY, SPAIN, tiny, trace
from workbench.facts.known import known_facts
from workbench.language import prompts
from workbench.language.prompts import NoSwapPartner, prompt_ids, traced_prompt
from workbench.plots.effect_words import describe
from workbench.tracing.ablation import ablate
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import causal_trace
from workbench.types import Fact, FactSet


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


# The text and the token


def test_the_form_is_the_first_in_which_the_model_says_the_answer() -> None:
    model = by_hand()  # says " Paris" after anything with France; in chat form too
    assert traced_prompt(tiny(), FRANCE).form == "chat"
    assert traced_prompt(tiny(), FRANCE, form="cloze").answer_token == " Paris"
    assert traced_prompt(model, FRANCE).answer_token == " Paris"


def test_a_question_that_does_not_name_the_subject_leaves_the_cloze() -> None:
    """Also where the model answers it: there is nothing in it to corrupt."""
    asked = capital("France", "Paris", "Rome", question="What is the capital?")
    model = knowing(tiny_llama(tied=False), FactSet([asked, SPAIN]))
    found = traced_prompt(model, asked)
    assert (found.form, found.subject) == ("cloze", traced_prompt(model, asked, form="cloze").subject)
    assert traced_prompt(model, asked, needs_subject=False).form == "chat"
    with pytest.raises(ValueError, match=r"The subject 'France' is not in the text"):
        traced_prompt(model, asked, form="chat")
    assert [p.form for p in causal_trace(model, [asked, SPAIN], samples=1, progress=False).prompts] == ["cloze"] * 2
    unsaid = replace(asked, prompt="Of France and Spain")
    with pytest.raises(ValueError, match=r"'France' is not in the text .* In cloze form, where it is, the answer"):
        traced_prompt(model, unsaid)


def test_an_answer_that_its_adjective_gives_away_is_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """After "a French company in" the subject has nothing left to tell."""
    fact = capital("France", "Germany", "Rome", answer_aliases=("Paris",))
    assert traced_prompt(by_hand(), fact).answer_token == " Paris"
    monkeypatch.setattr("workbench.language.answers.adjectives", lambda: {"Germany": ["Paris"]})
    with pytest.raises(ValueError, match="'Germany', or has its adjective before it"):
        traced_prompt(by_hand(), fact)


def test_a_model_that_does_not_know_shows_what_it_says() -> None:
    wrong = capital("France", "Tokyo", "Rome")
    with pytest.raises(ValueError, match=r"does not contain 'Tokyo'.*chat form says 'Paris'; cloze form says 'Paris'"):
        trace(tiny(), wrong)
    with pytest.raises(ValueError, match=r"no place to trace \(cloze form says 'Paris'\)"):
        trace(tiny(), wrong, form="cloze")


def test_token_target_measures_the_target_at_the_same_place() -> None:
    answer, target = (traced_prompt(tiny(), FRANCE, token=t) for t in ("answer", "target"))
    assert answer.token_ids == target.token_ids
    assert (answer.answer_token, answer.other_token) == ("Paris", "Rome")
    assert (target.answer_token, target.other_token) == ("Rome", "Paris")
    found = trace(tiny(), token="target", metric="logit_diff", form="cloze")
    assert found.clean == pytest.approx(-trace(tiny(), metric="logit_diff", form="cloze").clean, abs=1e-4)


def said(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Make every completion read so."""
    from workbench.language.generation import Completion

    ids = tuple(tiny().token_ids(text))
    monkeypatch.setattr(
        "workbench.language.prompts.greedy_answers", lambda model, prompts, **_: [Completion(text, ids)] * len(prompts)
    )


def test_the_traced_text_ends_before_the_answers_first_token(monkeypatch: pytest.MonkeyPatch) -> None:
    said(monkeypatch, "The capital of France is Paris.")
    prompt = traced_prompt(tiny(), FRANCE, form="chat")
    assert prompt.prefix == "The capital of France is"
    assert prompt.text.endswith("assistant\nThe capital of France is")
    assert prompt.answer_token == " Paris"
    assert prompt.other_token == " Rome"
    assert len(prompt.subject) == 2  # in the question and in the answer
    assert {prompt.tokens[i] for i in prompt.subject} == {" France"}


def test_the_target_is_spelled_as_the_answer_after_a_line_break(monkeypatch: pytest.MonkeyPatch) -> None:
    said(monkeypatch, "The city is\nParis.")
    prompt = traced_prompt(tiny(), FRANCE, form="chat")
    assert prompt.answer_token == "Paris"
    assert prompt.other_token == "Rome"


def test_an_alias_that_starts_as_the_target_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the logit difference would be 0 everywhere."""
    said(monkeypatch, "The capital of France is Rome Paris.")
    with pytest.raises(ValueError, match="same token"):
        traced_prompt(tiny(), capital("France", "Madrid", "Rome", answer_aliases=("Rome Paris",)), form="chat")


def test_the_subject_is_not_taken_for_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    said(monkeypatch, "The city in Rome Paris is Rome.")
    fact = capital("Rome Paris", "Rome", "Berlin")
    prompt = traced_prompt(tiny(), fact, form="chat")
    assert prompt.prefix == "The city in Rome Paris is"


def test_an_answer_and_a_target_of_one_first_token() -> None:
    fact = capital("France", "Paris", "Paris Rome")
    with pytest.raises(ValueError, match=r"start with the same token ' Paris'.*Choose another target"):
        trace(tiny(), fact, form="cloze")


def test_a_bare_space_is_no_answers_first_token() -> None:
    """The tokenizer of the tiny models writes " 5" as a space and a digit: the digit is the first token."""
    model = tiny()
    space, digit = model.token_ids(" 5")
    assert prompts.first_token(model, "5") == digit != space
    with pytest.raises(ValueError, match="has no token besides spaces"):
        prompts.first_token(model, "\t")


def test_a_digit_after_a_space_of_its_own_is_traced_at_the_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    said(monkeypatch, "It is 5.")
    prompt = traced_prompt(tiny(), capital("France", "5", "7"), form="chat")
    assert (prompt.prefix, prompt.answer_token, prompt.other_token) == ("It is ", "5", "7")


# The swap partner


def test_a_swap_partner_of_another_length_names_both_lengths() -> None:
    long = capital("the city", "Rome", "Paris", id="long")
    with pytest.raises(ValueError, match=r"swap subject 'the city' \(long\) has \d+ tokens where 'France' has 1"):
        trace(tiny(), corruption="swap", partner=long)


def test_a_swap_partner_with_the_same_answer() -> None:
    with pytest.raises(ValueError, match="has an answer with the same first token 'Paris'"):
        trace(tiny(), corruption="swap", partner=capital("Japan", "Paris", "Rome"))


def test_no_swap_partner_says_how_to_give_one() -> None:
    with pytest.raises(
        ValueError, match=r"No fact of the relation 'capital' in the pool is worded.*partner=Fact\(...\)"
    ):
        trace(tiny(), corruption="swap", pool=FactSet([FRANCE]))


def test_the_default_partner_is_a_known_neighbour_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def only(known: str) -> None:
        def fake(model: Any, facts: list[Fact], **options: Any) -> list[Fact]:
            return [f for f in facts if f.id == known]

        monkeypatch.setattr("workbench.tracing.corruption.known_facts", fake)

    assert trace(tiny(), corruption="swap").prompts[0].partner == "spain-capital"  # Rome is the target
    only("japan-capital")
    assert trace(tiny(), corruption="swap").prompts[0].partner == "japan-capital"
    monkeypatch.setattr("workbench.tracing.corruption.PARTNERS_ASKED", 1)
    assert trace(tiny(), corruption="swap").prompts[0].partner == "spain-capital"


def test_a_partner_that_the_model_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = trace(tiny(), corruption="swap")
    assert known.prompts[0].partner_known is True and known.notes == ()
    stranger = capital("Spain", "Tokyo", "Rome", id="stranger")  # it says Madrid
    found = trace(tiny(), corruption="swap", partner=stranger)
    assert found.prompts[0].partner_known is False
    assert found.notes[0].startswith("The model does not know the swap partner stranger")
    assert found.notes[0] in " ".join(describe(found))
    result = ablate(tiny(), FRANCE, "L1H0", ablation="swap", partner=stranger, pool=FACTS)
    assert result.prompt.partner_known is False and found.notes[0] in result.words
    monkeypatch.setattr("workbench.tracing.corruption.known_facts", lambda *_, **__: [])
    assert trace(tiny(), corruption="swap").prompts[0].partner_known is True, "its own answer names it"


@pytest.mark.parametrize("form", ["cloze", "chat"])
def test_a_partner_is_used_as_it_is_written(form: Any) -> None:
    """Not with its subject alone: other words in its prompt are in the corrupted run, in traces, attributions and
    ablations alike."""
    partner = replace(SPAIN, prompt="The city of Spain is", question="What is the city of Spain?")
    options: dict[str, Any] = {"corruption": "swap", "partner": partner, "form": form}
    found = trace(tiny(), metric="logit_diff", **options)
    prompt = found.prompts[0]
    assert prompt.partner_text is not None and "city of Spain" in prompt.partner_text
    other = partner.prompt if form == "cloze" else partner.question
    ids = torch.tensor([prompt_ids(tiny(), other, form)])
    assert prompt.other_id is not None
    with torch.no_grad():
        logits = tiny().hf(ids).logits[0, -1]
    expected = float(logits[prompt.answer_id] - logits[prompt.other_id])
    assert found.corrupted == pytest.approx(expected, abs=1e-4)
    heads = attribute(tiny(), FRANCE, pool=FACTS, progress=False, **options)
    assert heads.corrupted == pytest.approx(expected, abs=1e-4)
    result = ablate(tiny(), FRANCE, "L1H0", ablation="swap", partner=partner, form=form, pool=FACTS)
    assert result.corrupted == pytest.approx(expected, abs=1e-4)


def test_a_partner_written_with_other_tokens_is_refused() -> None:
    longer = replace(SPAIN, prompt="The capital city of Spain is")
    with pytest.raises(
        NoSwapPartner,
        match=r"is written 'The capital city of Spain is', 6 tokens in cloze form where .*"
        r"has 5.*such as 'The capital of Spain is'",
    ) as caught:
        trace(tiny(), corruption="swap", partner=longer, form="cloze")
    assert caught.value.text == longer.prompt
    same = replace(FRANCE, id="twin", answer="Rome", target="Paris")
    with pytest.raises(NoSwapPartner, match=r"has the text of 'france-capital'.*nothing would be corrupted"):
        trace(tiny(), corruption="swap", partner=same, form="cloze")


def test_a_default_partner_differs_in_the_subject_alone() -> None:
    """A neighbour that is worded otherwise is passed over."""
    pool = FactSet([FRANCE, replace(SPAIN, prompt="The city of Spain is"), FACTS["japan-capital"]])
    assert trace(tiny(), corruption="swap", pool=pool, form="cloze").prompts[0].partner == "japan-capital"
    assert trace(tiny(), corruption="swap", pool=pool, form="chat").prompts[0].partner == "spain-capital"


def test_the_default_partner_does_not_depend_on_what_was_measured_before() -> None:
    model = tiny()
    before = trace(model, corruption="swap").prompts[0].partner
    known_facts(model, FACTS, form="any", progress=False)
    assert trace(model, corruption="swap").prompts[0].partner == before


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "head"}, r"site must be one of \('resid', 'mlp', 'attn', 'z', 'q', 'k', 'v'\), got 'head'"),
        ({"corruption": "zero"}, "corruption must be one of .*got 'zero'"),
        ({"metric": "loss"}, "metric must be one of .*got 'loss'"),
        ({"form": "plain"}, "form must be 'chat' or 'cloze', got 'plain'"),
        ({"token": "other"}, "token must be 'answer' or 'target', got 'other'"),
        ({"window": 3}, r"window= is for the sites \('mlp', 'attn'\); the others restore one state, got 3"),
        ({"site": "mlp", "window": 0}, "window must be from 1 to the model's 4 layers, got 0"),
        ({"site": "mlp", "window": 5}, "window must be from 1 to the model's 4 layers, got 5"),
        ({"samples": 0}, "samples must be a whole number of at least 1, got 0"),
        ({"samples": 2.5}, "samples must be a whole number of at least 1, got 2.5"),
        ({"seed": 1.5}, "seed must be a whole number from 0"),
        ({"seed": 2**70}, "seed must be a whole number from 0"),
        ({"noise": -1.0}, "noise must be a number of standard deviations above 0, got -1.0"),
        ({"noise": float("nan")}, "noise must be a number of standard deviations above 0, got nan"),
        ({"noise": float("inf")}, "noise must be a number of standard deviations above 0, got inf"),
        ({"noise": "3"}, "noise must be a number of standard deviations above 0, got '3'"),
        ({"noise_positions": 3}, r"noise_positions must be indices of tokens, such as \[3, 4\], got 3"),
        ({"noise_positions": ["subject"]}, r"noise_positions must be indices of tokens"),
        ({"max_rows": 1.5}, "max_rows must be a whole number of at least 1, got 1.5"),
        ({"layers": 1}, "layers must be some of 0 to .*, got 1"),
        ({"site": "mlp", "window": 1.0}, "window must be from 1 to the model's .* layers, got 1.0"),
        ({"partner": ITALY}, "partner= is the other subject of a swap; give corruption='swap'"),
        ({"fact": [FRANCE, FRANCE]}, "Each fact may be given once"),
        ({"fact": [FRANCE, replace(FRANCE, id="f-2")]}, "'france-capital' and 'f-2' are one fact under two ids"),
        ({"noise_positions": [99]}, r"noise_positions must be within 0 to 4, got \[99\]"),
        ({"noise_positions": [-1]}, "noise_positions must be within 0 to 4"),
        ({"noise_positions": []}, "noise_positions must be within 0 to 4"),
        ({"corruption": "swap", "noise_positions": [1]}, "a swap always replaces the subject"),
        ({"fact": []}, "at least one fact, got none"),
        (
            {"fact": [FRANCE, SPAIN], "partner": ITALY, "corruption": "swap"},
            "partner= and noise_positions= are for one fact",
        ),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(tiny(), **{"form": "cloze", **options})
