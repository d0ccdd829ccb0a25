"""The main job on the bundled model, with a recipe too short to be good: trace, attribute, select, edit, evaluate."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from benchmarks.retained_answers import asked_keys
from workbench.facts.retained import RETAIN_TOKENS
from workbench.language.bundled_answers import hashed, shipped_answers
from workbench.language.generation import MAX_NEW_TOKENS, generate
from workbench.language.prompts import check_first_tokens

pytestmark = pytest.mark.model


def weights(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.hf.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def fact(facts: Any) -> Any:
    return facts["france-capital"]


@pytest.fixture(scope="module")
def untouched(model: Any) -> Iterator[None]:
    """The whole module leaves the model as it found it."""
    before = weights(model)
    modules = [(name, id(module), module.training) for name, module in model.hf.named_modules()]
    yield
    assert weights(model) == before
    assert [(name, id(module), module.training) for name, module in model.hf.named_modules()] == modules


@pytest.fixture(scope="module")
def edit(model: Any, fact: Any, facts: Any, untouched: None) -> Any:
    known = wb.known_facts(model, facts.filter(role="retain"), progress=False)
    retain = list(known)[:6]
    neurons = wb.attribute(model, fact, "neuron", contrast=retain[:2], samples=1, progress=False)
    selection = neurons.top(200, layers=range(8, 30))
    assert len(selection) == 200
    assert selection.n_parameters(model) == 200
    recipe = wb.Recipe.named("learn-only", steps=12, retain_batch_size=4, seed=0)
    return wb.rewrite(model, fact, selection, recipe=recipe, retain=retain, progress=False)


def test_the_edit_moves_the_selection_and_nothing_else(edit: Any, model: Any) -> None:
    entries = edit.selection.entries(model)
    (stage,) = edit.stages
    assert stage.name == "learn"
    assert 0 < edit.delta().n_moved() <= 200
    for key, gate in stage.delta.gates.items():
        others = torch.ones(len(gate), dtype=torch.bool)
        others[list(entries[key])] = False
        assert bool((gate[others] == 1).all())


def test_the_new_answer_becomes_likelier(edit: Any, model: Any, fact: Any) -> None:
    found = wb.answer_probabilities(model, fact, edit=edit)
    old, new = "old: Paris", "new: Rome"
    assert set(found["before"]) == {old, new, "refusal: ... I am not sure."}  # what unlearn would teach
    assert found["before"][old] > 0.5 > found["before"][new]
    assert found["after learn"][new] > 10 * found["before"][new]
    assert found["after learn"][old] < found["before"][old]


def test_evaluation(edit: Any, model: Any, tmp_path: Path) -> None:
    report = wb.evaluate(model, edit=edit, max_controls=6, progress=False)
    assert report.flips is not None and "control_firm" in report.rates["learn"], "near ties of the base are on record"
    assert report.stages == ("base", "learn")
    base = {name: report.rate(name, "base") for name in ("old", "new", "control", "neighbour", "forget")}
    assert base["old"].value >= 0.75
    assert base["old"].n >= 8
    assert base["new"].value == 0
    assert base["control"].value == base["neighbour"].value == 1
    assert base["control"].n == 6
    assert base["forget"].value == 0
    assert report.rate("kl").value > 0
    assert report.rate("control").n == 6
    assert not {r.fact_id for r in report.rows} & set(edit.retain_ids)
    assert all(r.text for r in report.rows)
    assert report.missing == (
        "same answer as france-capital: 'bundled facts' has 2, but they may be retained, so they are never evaluated",
    )
    saved = report.save(tmp_path / "report.json")
    again = wb.EvalReport.load(saved)
    assert again.to_dict() == report.to_dict()
    assert again.rows == report.rows


def test_save_load_and_strength(edit: Any, model: Any, tmp_path: Path) -> None:
    again = wb.load_edit(edit.save(tmp_path / "edit"))
    assert again.id == edit.id
    assert again.history == edit.history
    assert again.facts == edit.facts
    ids = torch.tensor([model.token_ids("The capital of France is")])
    with torch.no_grad():
        base = model.hf(ids).logits
        with wb.applied(model, again, strength=0.0) as off, wb.applied(model, again) as on:
            assert torch.equal(off.hf(ids).logits, base)
            assert not torch.equal(on.hf(ids).logits, base)


def test_the_fact_is_where_it_should_be(model: Any, fact: Any, untouched: None) -> None:
    """Early layers carry the fact at the subject, late ones at the last token; TRAPS and METHODS name head L23H4."""
    trace = wb.causal_trace(model, fact, form="cloze", samples=3, progress=False)
    (subject,) = trace.subject
    last = trace.prompts[0].position
    assert trace.corrupted is not None and trace.clean > 0.5 > trace.corrupted
    assert trace.values[3, subject] > 0.5 * (trace.clean - trace.corrupted)
    assert trace.values[28, last] > 0.5 * (trace.clean - trace.corrupted)
    assert trace.values[28, subject].abs() < 0.05
    heads = wb.attribute(model, fact, "head", corruption="swap", form="cloze", progress=False)
    assert "L23H4" in heads.top(5)
    assert wb.ablate(model, fact, "L23H4", form="cloze").effect > 0
    pattern = wb.attention_pattern(model, fact, "L23H4", form="cloze")
    assert pattern.to_numpy()[last, subject] > 0.1
    assert pattern.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4)
    exact = wb.attribute(model, fact, "head", method="patching", corruption="swap", form="cloze", progress=False)
    assert wb.agreement(heads, exact) > 0.5


def test_the_maps_of_a_fact_in_a_sentence(model: Any, fact: Any, untouched: None) -> None:
    """The answer moves from the subject to the last token in the upper layers, by one head, which the model needs and
    which writes the answer."""
    swap: dict[str, Any] = {"corruption": "swap", "metric": "logit_diff", "normalise": True, "form": "cloze"}
    trace = wb.causal_trace(model, fact, progress=False, **swap)
    maps = wb.attribute(model, fact, ("head", "mlp", "attn"), progress=False, **swap)
    found = wb.where_read(trace, maps["head"], maps["mlp"])
    assert found.stretches[0].text == "France" and found.stretches[-1].text == "the last token"
    assert found.stretches[-1].last == 29 and 15 < found.stretches[-1].first < 29
    assert found.head is not None and found.head.share > 0.1 > abs(found.head.median)
    assert found.words.startswith("Read at France until L") and "the last token" in found.words
    assert {str(one.component) for one in wb.ranked(maps, k=8)} >= {str(found.head.component), "L23ATTN"}
    for kind in ("zero", "mean", "swap"):
        lost = wb.ablate(model, fact, "L23H4", ablation=kind, control=2, form="cloze")
        assert lost.effect > 0 and lost.control_effect is not None and lost.effect > lost.control_effect
        assert lost.clean_next[0].token == " Paris"
    written = wb.writes(model, "L23H4", fact=fact, form="cloze", k=20)
    assert any("Paris" in one.token or "Fr" in one.token for one in written.raised)
    grid = wb.lens_grid(model, fact, form="cloze")
    assert grid.settles is not None and int(grid.settles[1:]) > 10 and float(grid.probabilities[-1, -1]) > 0.5
    assert wb.next_tokens(model, fact.prompt, form="cloze").top[0].token == " Paris"


def test_every_bundled_fact_can_be_edited(model: Any, facts: Any) -> None:
    """Answer and target start with different tokens, which ``rewrite`` asks for."""
    for one in facts:
        check_first_tokens(model, one)


def test_shipped_answers_are_what_the_model_says(model: Any, facts: Any) -> None:
    """There is one for every training question of the facts that may be retained, and for the question of every known
    fact; of a sample, asked in other batches than when they were written, at most one differs (near ties)."""
    shipped = shipped_answers(model.fingerprint)
    keys = list(asked_keys(model))
    assert {hashed(key) for key in keys} == set(shipped), "run python -m benchmarks.retained_answers"
    lengths = {RETAIN_TOKENS: 120, MAX_NEW_TOKENS: 40}
    assert {key[1] for key in keys} == set(lengths)
    for most, every in lengths.items():
        sample = [key for key in keys if key[1] == most][::every]
        assert len(sample) >= 15
        said = generate(model, [prompt for prompt, *_ in sample], max_new_tokens=most)
        differ = [key for key, one in zip(sample, said, strict=True) if shipped[hashed(key)] != list(one.token_ids)]
        assert len(differ) <= 1
