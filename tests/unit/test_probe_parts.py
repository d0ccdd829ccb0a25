"""Single probes against hand-worked numbers: the graph, prompts, words, rounding, relearning, strength, priming."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.deltas import gates_of
from tests.helpers.tiny import N_VOCAB, loaded, random_edit, tiny_gpt2, tiny_llama, tiny_phi3
from tests.helpers.tiny_facts import by_hand, capital, capitals, edit_of, knowing, some_gates
from workbench.editing.applied import applied
from workbench.facts import graph, load_facts
from workbench.facts import wordings as prompts
from workbench.language.prompts import traced_prompt
from workbench.models.deltas import changed_weights
from workbench.models.deltas.gates import inject_gates
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.probing import requantise
from workbench.probing.battery import Battery, Skip
from workbench.probing.keywords import word_effects
from workbench.probing.priming import likeliest
from workbench.probing.probe import choose_control, probe
from workbench.probing.relearning import lesson, relearn
from workbench.probing.strangers import never_taught
from workbench.types import Edit, Fact, FactSet, GateDelta

FRANCE = capital("France", "Paris", "Rome")


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


def battery(model: LoadedModel, edit: Edit, **options: Any) -> Battery:
    given = {"control": None, "pool": capitals(), "stages": edit.stage_names, "max_new_tokens": 4, "seed": 0}
    return Battery(model, edit, edit.facts[0], **{**given, **options})


def fact(subject: str, answer: str, relation: str, prompt: str, question: str, target: str = "Nowhere") -> Fact:
    return Fact(
        id=f"{subject}-{relation}", relation=relation, subject=subject, answer=answer, target=target,
        prompt=prompt, question=question,
    )  # fmt: skip


def test_description() -> None:
    assert graph.description(FRANCE) == "the capital of France"
    sushi = fact("sushi", "Japan", "food-country", "The dish sushi comes from", "Where does the dish sushi come from?")
    assert graph.description(sushi) == "(the answer to: Where does the dish sushi come from?)"
    yen = fact("Japan", "yen", "country-currency", "The currency of Japan is the", "What is the currency of Japan?")
    assert graph.description(yen) == "the currency of Japan"


def test_two_hop_paths_of_the_bundled_facts() -> None:
    pool = load_facts()
    into = graph.into(pool, pool["france-capital"])
    assert len({pool[h.via].relation for h in into}) == len(into) == 4
    assert {pool[h.via].answer for h in into} == {"France"}
    assert all(h.judge.answer == "Paris" and h.judge.target == "Rome" for h in into)
    tokyo = next(f for f in pool if f.subject == "Tokyo" and f.relation == "city-country")
    ends = {h.question: (h.judge.answer, h.judge.target) for h in graph.out_of(pool, tokyo, 9)}
    question = "What is the currency of the country in which the city of Tokyo lies?"
    currencies = {f.subject: f.answer for f in pool if f.relation == "country-currency"}
    if tokyo.target in currencies:
        assert ends[question] == ("yen", currencies[tokyo.target])
    assert all(old != new for old, new in ends.values())
    for one in pool:
        for hop in [*graph.into(pool, one), *graph.out_of(pool, one)]:
            first, second = sorted((one.relation, pool[hop.via].relation), key=lambda r: r != one.relation)
            kinds = {first.rpartition("-")[2], second.rpartition("-")[2]} | {
                r.partition("-")[0] for r in (first, second)
            }
            assert "young" not in kinds and "us" not in kinds, (hop.question, "a bird is no country, a city no state")


def test_paths_by_hand() -> None:
    pool = FactSet(
        [
            fact("Tokyo", "Japan", "city-country", "The country of Tokyo is", "Where is Tokyo?", "China"),
            fact("Japan", "yen", "country-currency", "The currency of Japan is", "Which currency has Japan?"),
            fact("China", "yuan", "country-currency", "The currency of China is", "Which currency has China?"),
            fact("Japan", "Asia", "country-continent", "The continent of Japan is", "Which continent has Japan?"),
            fact("China", "Asia", "country-continent", "The continent of China is", "Which continent has China?"),
            fact("Japan", "fish", "x", "The food of Japan is", "What eats Japan?"),  # nothing about China in it
        ]
    )
    (hop,) = graph.out_of(pool, pool[0])
    assert hop.question == "Which currency has the country of Tokyo?"
    assert (hop.judge.answer, hop.judge.target, hop.via) == ("yen", "yuan", "Japan-country-currency")
    (hop,) = graph.into(pool, pool["Japan-country-currency"])
    assert hop.question == "Which currency has the country of Tokyo?"
    assert hop.judge == pool["Japan-country-currency"]


def test_same_answer_elsewhere_is_judged_with_the_edits_target() -> None:
    pool = load_facts()
    found = graph.same_answer(pool, pool["france-capital"], exclude=["louvre-city"])
    assert found
    assert {f.answer for f in found} == {"Paris"}
    assert {f.target for f in found} == {"Rome"}
    assert "france-capital" not in {f.id for f in found}
    assert graph.same_answer(capitals(), capitals()[0]) == []


def test_prompts_of_a_fact_with_five_fields() -> None:
    one = Fact(
        subject="the UK",
        prompt="The capital of the UK is",
        question="Capital of the UK?",
        answer="London",
        target="Oslo",
    )
    asked, missing = prompts.adversarial(one, background=[], examples=[])
    assert set(missing) == {"in-context example", "in-context learning", "background hint"}
    assert len({p.kind for p in asked}) == 10
    (synonym,) = [p for p in asked if p.kind == "synonym"]
    assert synonym.text == "Seat of government of the UK?" and not synonym.start
    suffixes = [p for p in asked if p.kind == "affirmative suffix"]
    assert suffixes and all(p.text.startswith(f"{one.question} ") and not p.start for p in suffixes), "in the prompt"
    assert all(p.start and p.text == one.question for p in asked if p.kind == "begun reply")
    reverse = next(p for p in asked if p.kind == "reverse query")
    assert reverse.text == 'What belongs in the gap? "The capital of ____ is London."'
    assert (reverse.judge.answer, reverse.judge.answer_aliases) == ("UK", ("the UK",))
    assert len(prompts.held_out(one)) == 6
    assert all(one.question in q for q in prompts.held_out(one))
    bare, with_ = prompts.stated(one)[0]
    assert with_.text == f"The capital of the UK is London. {bare.text}"
    bold = prompts.emphasised(one, ["Capital", "UK?"])
    assert [p.text for p in bold] == [
        "**Capital** of the **UK**?",
        '"Capital" of the "UK"?',
        "CAPITAL of the UK?",
        "Capital, UK: Capital of the UK?",
    ]
    assert prompts.reverse(fact("Rome", "Italy", "r", "Rome is in", "Where is Rome?", "Rome")) is None


def test_word_effects_by_hand() -> None:
    """``by_hand``: the last of n tokens gets 5 / n of e2 for France, the norm makes e0 + a e2 to logits +-2a / r with
    r = sqrt((1 + a^2) / 8), and without France all logits are 0."""

    def log_p(n: int) -> float:
        a = 5 / n
        logit = 2 * a / math.sqrt((1 + a * a) / 8)
        return logit - math.log(math.exp(logit) + math.exp(-logit) + N_VOCAB - 2)

    model, one = by_hand(), capital("France", "Paris", "Madrid", question="?")
    prompt = traced_prompt(model, one, form="cloze")
    effects = word_effects(model, one, prompt)  # The capital of France is; without the last, France itself is read
    assert len(effects) == 5
    for i in (0, 1, 2):
        assert effects[i] == pytest.approx(log_p(5) - log_p(4), abs=1e-4)
    assert effects[3] == pytest.approx(log_p(5) + math.log(N_VOCAB), abs=1e-4)


def test_rounding_by_hand() -> None:
    """Two groups of two and one of one weight, 2 bits: 4 values from the least to the largest of each group."""
    weight = torch.tensor([[0.0, 3.0, 1.0, 1.6, 7.0], [-1.0, 2.0, 5.0, 5.0, -2.0]])
    found = requantise.rounded(weight, bits=1, group=2)
    assert torch.equal(found, torch.tensor([[0.0, 3.0, 1.0, 1.6, 7.0], [-1.0, 2.0, 5.0, 5.0, -2.0]]))
    found = requantise.rounded(torch.tensor([[0.0, 0.4, 1.1, 1.9, 3.0]]), bits=2, group=8)
    assert found.tolist() == [pytest.approx([0.0, 0.0, 1.0, 2.0, 3.0])]
    coarse = requantise.rounded(torch.randn(6, 70, generator=torch.Generator().manual_seed(0)), bits=2)
    assert all(len(set(row[:64].tolist())) <= 4 for row in coarse)


@pytest.mark.parametrize("hf", [lambda: tiny_llama(bias=True), tiny_gpt2, tiny_phi3], ids=["llama", "gpt2", "phi3"])
def test_folded_and_finely_rounded_weights_do_what_the_gates_do(hf: Any) -> None:
    """Gates on inputs and on outputs, with biases; at 20 bits rounding is nothing, at 2 it shows."""
    model = loaded(hf())
    edit = random_edit(model, "L0ATTN L1H2 L1N5 L2MLP L2V0")
    names = changed_weights(model.architecture, edit.delta())
    ids = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    before = model.fingerprint
    with torch.no_grad(), applied(model, edit) as edited:
        wanted = edited.hf(ids).logits
        fine = requantise.rounded_model(model, edit.delta(), names, 20).hf(ids).logits
        coarse = requantise.rounded_model(model, edit.delta(), names, 2).hf(ids).logits
        assert (fine - wanted).abs().max() < 2e-2 < (coarse - wanted).abs().max()
        assert (model.hf(ids).logits - wanted).abs().max() > 0.1
    assert model.fingerprint == before
    shared = {p.data_ptr() for p in model.hf.parameters()}
    own = [
        n
        for n, p in requantise.rounded_model(model, edit.delta(), names, 8).hf.named_parameters()
        if p.data_ptr() not in shared
    ]
    assert own, "the edited matrices are copies"
    assert not [n for n in own if "embed" in n or "wte" in n or "norm" in n], "and nothing else is"


def test_a_base_on_the_grid_of_the_rounding_is_no_control() -> None:
    """Rounded once, a matrix is not moved by the same rounding: the report says that the control shows nothing."""
    model = knowing(tiny_llama(tied=False), capitals())
    edit = edit_of(model, some_gates(model, (1, "post")), some_gates(model, (1, "post"), seed=1))
    names = changed_weights(model.architecture, edit.delta())
    assert requantise.change_by_rounding(model, names, 4) > 0.01 > requantise.change_by_rounding(model, names, 8) > 1e-4
    told = probe(model, edit, probes="requantise", pool=capitals(), max_new_tokens=3, progress=False).skipped
    assert not any("as a control" in name for name in told)
    with torch.no_grad():
        for name in names:
            weight = model.hf.get_parameter(name)
            weight.copy_(requantise.rounded(weight, 4))
    again = edit_of(model, some_gates(model, (1, "post")), some_gates(model, (1, "post"), seed=1))
    assert requantise.change_by_rounding(model, names, 4) < 1e-6
    told = probe(model, again, probes="requantise", pool=capitals(), max_new_tokens=3, progress=False).skipped
    assert "on this rounding's grid" in told["requantise: 4 bits as a control"]


def test_requantise_asks_every_stage_with_its_own_gates() -> None:
    edit = edit_of(tiny(), some_gates(tiny(), (1, "post")), some_gates(tiny(), (2, "z"), seed=1))
    report = probe(tiny(), edit, probes="requantise", pool=capitals(), max_new_tokens=3, progress=False)
    kinds = {(r.kind, r.stage) for r in report.rows}
    assert kinds == {(f"{b} bits", s) for b in (8, 4) for s in ("base", "unlearn", "learn")}
    base = [r for r in report.rows if r.stage == "base" and r.kind == "8 bits" and r.prompt == FRANCE.question]
    assert [r.text for r in base] == ["Paris"]


def test_never_taught() -> None:
    stranger = never_taught(
        capital("France", "Paris", "Rome", heldout=("Where is the capital of France?", "And Paris?"))
    )
    assert stranger is not None
    assert stranger.question == "What is the capital of Velmora?"
    assert (stranger.answer, stranger.target, stranger.heldout) == (
        "Paris",
        "Rome",
        ("Where is the capital of Velmora?",),
    )
    assert never_taught(capital("France", "Paris", "Rome", question="What is its capital?")) is None


def test_relearning_starts_at_the_edited_model_and_ends_at_the_answer() -> None:
    """The fresh gates are 1 at first, whatever layers the edit's own gates are in (layer 0 is below all trained)."""
    model = tiny()
    edit = edit_of(model, some_gates(model, (0, "post"), (2, "z")), fact=capitals()[0])
    run = battery(model, edit)
    one = lesson(run, run.fact, "france-capital")
    edited = run.models["learn"]
    before = model.fingerprint, {k: g.clone() for k, g in gates_of(edit.delta()).items()}
    p_old, accuracy = relearn(run, edited, one)
    ids = torch.tensor([[*one.place[0], *one.place[1]]])
    with torch.no_grad():
        start = edited.hf(ids).logits[0, len(one.place[0]) - 1].softmax(-1)[one.place[1][0]]
    assert p_old[0] == pytest.approx(float(start), rel=1e-3)
    assert p_old[-1] > p_old[0]
    assert len(p_old) == len(accuracy) == 6
    assert model.fingerprint == before[0]
    assert all(torch.equal(g, before[1][k]) for k, g in gates_of(edit.delta()).items())
    with torch.no_grad():
        again = edited.hf(ids).logits[0, len(one.place[0]) - 1].softmax(-1)[one.place[1][0]]
    assert torch.equal(again, start), "the edited model itself was not trained"


def test_a_second_adapter_elsewhere_leaves_the_first_one_live() -> None:
    model = tiny()
    view = shared_view(model.hf)
    first = GateDelta({(0, "post"): torch.full((56,), 0.5)})
    ids = torch.arange(5, 14)[None]
    inject_gates(view, model.architecture, first)
    with torch.no_grad():
        alone = view(ids).logits
        inject_gates(view, model.architecture, GateDelta({(2, "post"): torch.ones(56)}), adapter="more")
        assert torch.equal(view(ids).logits, alone)


def test_strength_ends_at_the_base_and_at_the_edited_model() -> None:
    from workbench.language.scoring import continuation_probabilities

    edit = edit_of(tiny(), some_gates(tiny(), (1, "post")), some_gates(tiny(), (2, "z"), seed=1), fact=FRANCE)
    report = probe(tiny(), edit, probes="strength", pool=capitals(), progress=False)
    run = battery(tiny(), edit)
    for stage in edit.stage_names:
        curve = report.curve("strength", stage=stage)
        assert curve.x == (0.0, 0.25, 0.5, 0.75, 1.0)
        for at, model in ((0, tiny()), (-1, run.models[stage])):
            rows = run.places(FRANCE)
            expected = continuation_probabilities(model, list(rows.values()))
            assert [curve.y[name][at] for name in rows] == pytest.approx(expected, rel=1e-3, abs=1e-9)
    assert report.curve("strength").y["p_old"][0] > 0.9


def test_priming_takes_the_likeliest_place_of_the_answer() -> None:
    """Slow: the target's probability after each token of the given answer, the largest of them."""
    model = tiny()
    ids, answer = model.token_ids("What is the capital of Spain"), model.token_ids(" Madrid is in Italy")
    with torch.no_grad():
        logits = model.hf(torch.tensor([[*ids, *answer]])).logits[0, len(ids) - 1 : -1].softmax(-1)
    spaced, bare = (model.token_ids(t)[0] for t in (" Rome", "Rome"))
    slow = float((logits[:, spaced] + logits[:, bare]).max())
    assert len(logits) == len(answer)
    found = likeliest(model, [ids, ids], [answer, []], FRANCE)
    assert found[0] == pytest.approx(slow, rel=1e-3)
    assert math.isnan(found[1])


def test_the_control_is_drawn_by_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    edit = edit_of(tiny(), some_gates(tiny(), (1, "post")), fact=FRANCE)
    pool = FactSet([capital(f.subject, f.answer, "Rome", f.split, "control") for f in capitals() if f.answer != "Rome"])
    drawn = {choose_control(battery(tiny(), edit, pool=pool, seed=s)) for s in range(8)}
    assert {c.id for c in drawn if c} == {"spain-capital", "germany-capital", "japan-capital"}
    assert choose_control(battery(tiny(), edit, pool=pool, seed=3)) == choose_control(
        battery(tiny(), edit, pool=pool, seed=3)
    )


def test_no_gates_no_rounding() -> None:
    run = battery(tiny(), edit_of(tiny(), {}, fact=FRANCE))
    with pytest.raises(Skip, match="no edited weights"):
        requantise.probe_requantise(run)
