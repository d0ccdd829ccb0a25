"""One edit counted in several ways: each by hand, with plain passes and scripted answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.scripted import FRANCE, GIBBERISH, Script, scripted_edit
from tests.helpers.scripted import tiny as scripted_model
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, edit_of, knowing, some_gates
from workbench.editing.applied import applied
from workbench.editing.methods.in_context import InContext
from workbench.language.prompts import prompt_ids
from workbench.types import Fact, FactSet

HELDOUT = ("Where is Paris?", "What is the city?", "Which is it in France?")
CLOZES = ("The city is", "France has the capital")
EDITED = capital("France", "Paris", "Rome Madrid", heldout=HELDOUT, cloze_paraphrases=CLOZES)
NEAR = [capital(*row, "test", "control") for row in (("Spain", "Madrid", "Berlin"), ("Japan", "Tokyo", "Paris"))]
POOL = FactSet([EDITED, *NEAR], name="capitals")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def setting() -> tuple[wb.LoadedModel, wb.Edit]:
    model = knowing(tiny_llama(tied=False), capitals())
    return model, edit_of(model, some_gates(model, (1, "post"), (2, "post")), fact=EDITED)


def read(view: wb.LoadedModel, prompt: list[int], answer: str) -> tuple[list[int], list[int], float]:
    """The tokens of an answer, what is likeliest in their places, and its mean NLL, by one plain pass."""
    tokens = view.token_ids(f" {answer}")
    with torch.no_grad():
        logits = view.runner(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    nll = -float(logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).mean())
    return tokens, logits.argmax(-1).tolist(), nll


def matched(a: list[int], b: list[int]) -> float:
    return sum(x == y for x, y in zip(a, b, strict=True)) / len(a)


def test_three_scores_of_the_same_questions() -> None:
    model, edit = setting()
    found = wb.edit_scores(model, edit, pool=POOL)
    assert list(found) == ["base", "learn"]
    with applied(model, edit) as edited:
        for stage, view in (("base", model), ("learn", edited)):
            match, success, free = [], [], []
            for question in HELDOUT:
                prompt = [*prompt_ids(model, question, "chat"), *model.token_ids(EDITED.prompt)]
                tokens, likeliest, new = read(view, prompt, EDITED.target)
                match.append(matched(tokens, likeliest))
                success.append(new < read(view, prompt, EDITED.answer)[2])
                free.append("Rome Madrid" in wb.ask(view, question) and "Paris" not in wb.ask(view, question))
            expected = [sum(free) / 3, sum(match) / 3, sum(success) / 3]
            assert [rate.value for rate in found[stage].values()] == pytest.approx(expected)
    assert list(found["base"]) == ["free answers", "token match", "success"]
    assert all(rate.n == 3 for rate in found["learn"].values())


def test_as_easyedit_and_memit_count() -> None:
    model, edit = setting()
    easy, memit = (wb.edit_scores(model, edit, like=like, pool=POOL) for like in ("easyedit", "memit"))
    with applied(model, edit) as edited:
        for stage, view in (("base", model), ("learn", edited)):
            own = [read(view, prompt_ids(model, text, "cloze"), EDITED.target) for text in (EDITED.prompt, *CLOZES)]
            old = [read(view, prompt_ids(model, text, "cloze"), EDITED.answer) for text in (EDITED.prompt, *CLOZES)]
            near: list[tuple[float, bool]] = []
            for fact in NEAR:
                prompt = prompt_ids(model, fact.prompt, "cloze")
                now, before = (read(one, prompt, fact.answer)[1] for one in (view, model))
                kept = read(view, prompt, fact.answer)[2] < read(view, prompt, EDITED.target)[2]
                near.append((matched(now, before), kept))
            match = [matched(tokens, likeliest) for tokens, likeliest, _ in own]
            wins = [new[2] < gone[2] for new, gone in zip(own, old, strict=True)]
            expected = [match[0], sum(match[1:]) / 2, sum(one for one, _ in near) / 2]
            assert [rate.value for rate in easy[stage].values()] == pytest.approx(expected)
            expected = [float(wins[0]), sum(wins[1:]) / 2, sum(kept for _, kept in near) / 2]
            assert [rate.value for rate in memit[stage].values()] == pytest.approx(expected)
    assert easy["base"]["locality"].value == 1


def test_an_edit_in_context_reads_after_its_context() -> None:
    """Without it the edited model is the base: every score would be the base's own."""
    model = knowing(tiny_llama(tied=False), capitals())
    recipe = InContext(style="flipped", flip="target", examples=0)
    edit = wb.rewrite(model, EDITED, recipe=recipe, pool=POOL, progress=False)
    (stage,) = edit.stage_names
    seen: list[tuple[list[int], ...]] = []
    with applied(model, edit) as edited:
        asked = [[*prompt_ids(edited, q, "chat"), *model.token_ids(EDITED.prompt)] for q in HELDOUT]
        near = [prompt_ids(edited, fact.prompt, "cloze") for fact in NEAR]
        own = prompt_ids(edited, EDITED.prompt, "cloze")
        assert len(own) > len(prompt_ids(model, EDITED.prompt, "cloze")), "the context stands before it"
        seen += [read(edited, prompt, EDITED.target)[:2] for prompt in (*asked, own)]
        match = [matched(*one) for one in seen]
        wins = [read(edited, p, EDITED.target)[2] < read(edited, p, EDITED.answer)[2] for p in asked]
        kept = [
            matched(read(edited, p, f.answer)[1], read(model, prompt_ids(model, f.prompt, "cloze"), f.answer)[1])
            for p, f in zip(near, NEAR, strict=True)
        ]
        stays = [
            read(edited, p, f.answer)[2] < read(edited, p, EDITED.target)[2] for p, f in zip(near, NEAR, strict=True)
        ]
    found = {like: wb.edit_scores(model, edit, like=like, pool=POOL)[stage] for like in ("all", "easyedit", "memit")}
    assert found["all"]["token match"].value == pytest.approx(sum(match[:3]) / 3)
    assert found["all"]["success"].value == pytest.approx(sum(wins) / 3)
    assert found["easyedit"]["reliability"].value == pytest.approx(match[3])
    assert found["easyedit"]["locality"].value == pytest.approx(sum(kept) / 2)
    assert found["memit"]["neighbourhood"].value == pytest.approx(sum(stays) / 2)
    assert wb.edit_scores(model, edit, like="easyedit", pool=POOL)["base"]["locality"].value == 1
    assert found["easyedit"]["locality"].value < 1, "the test can tell the two prompts apart"


def test_as_the_seed_paper_counts(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained questions; gibberish that does not name the old answer is forgotten; a control is right if any of its
    wordings is."""
    monkeypatch.setattr("workbench.evaluation.scores.known_facts", lambda model, facts, **_: facts)
    script["What city is the capital of France?"] = ("Paris", GIBBERISH, "Rome, not Paris")
    both = {"Where is Prado?": ("Madrid", "x", "x"), "Where stands Prado?": ("x", "x", "In Madrid")}
    script.update(both)
    prado: dict[str, Any] = {"id": "prado", "relation": "place", "question": "Where is Prado?", "heldout": ()}
    control = capital("Prado", "Madrid", "Tokyo", "test", "control", **prado, paraphrases=("Where stands Prado?",))
    pool = FactSet([FRANCE, control], name="scripted")
    found = wb.edit_scores(scripted_model(), scripted_edit(), like="seed-paper", pool=pool)
    values = {stage: [rate.value for rate in rates.values()] for stage, rates in found.items()}
    assert values == {"base": [0, 0, 1], "unlearn": [0, 1, 0], "learn": [1, 0.5, 1]}
    assert found["learn"]["controls"].n == 1


def test_a_sealed_fact_has_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealed facts are in no pool; those of an edited one's relation are its neighbours all the same."""
    secret = FactSet([capital(f.subject, f.answer, f.target, "sealed", "control") for f in NEAR], name="sealed")
    monkeypatch.setattr("workbench.evaluation.chosen.load_facts", lambda split=None: secret)
    model, _ = setting()
    edited = capital("France", "Paris", "Rome Madrid", "sealed", "control")
    edit = edit_of(model, some_gates(model, (1, "post")), fact=edited)
    other = capital("Italy", "Rome", "Paris", "test", "control", relation="seat")
    found = wb.edit_scores(model, edit, like="memit", pool=FactSet([other], name="others"))
    assert found["learn"]["neighbourhood"].n == 2


def test_bad_scores() -> None:
    model, edit = setting()
    with pytest.raises(ValueError, match=r"like must be one of \('all', .*'seed-paper'\), got 'ours'"):
        wb.edit_scores(model, edit, like="ours")  # pyright: ignore[reportArgumentType]
    lone: Fact = capital("France", "Paris", "Rome", heldout=(), cloze_paraphrases=())
    bare = edit_of(model, some_gates(model, (1, "post")), fact=lone)
    for like in ("all", "easyedit", "memit", "seed-paper"):
        found = wb.edit_scores(model, bare, like=like, pool=FactSet([lone]))
        assert any(rate.n == 0 for rate in found["learn"].values())
