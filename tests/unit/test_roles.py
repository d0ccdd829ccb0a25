"""Positions as roles, and means over facts: one mention with its like, one form at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, knowing, replying
from tests.helpers.traces import FACTS, FRANCE, SPAIN, tiny, trace
from workbench.tracing.attribution import attribute
from workbench.tracing.roles import by_role
from workbench.types import FactSet, TracedPrompt
from workbench.types.cell_intervals import mean_and_error
from workbench.types.roles import role_of, roles_of


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def test_roles_of_a_prompt() -> None:
    prompt = TracedPrompt(
        fact_id="x",
        form="cloze",
        text="",
        prefix="",
        token_ids=tuple(range(9)),
        tokens=tuple("abcdefghi"),
        subject=(2, 3, 4, 5),
        answer_id=0,
        answer_token="x",
    )
    roles = [role_of(prompt, i) for i in range(9)]
    middle = "middle subject tokens"
    before, after = "tokens before the subject", "tokens after the subject"
    assert roles[:6] == [before, before, "first subject token", middle, middle, "last subject token"]
    assert roles[6:] == [after, after, "last token"]
    assert roles_of([prompt]) == tuple(dict.fromkeys(roles))
    values = torch.arange(18.0).view(2, 9)
    reduced = by_role(values, prompt, roles_of([prompt]))
    torch.testing.assert_close(reduced, torch.tensor([[0.5, 2, 3.5, 5, 6.5, 8], [9.5, 11, 12.5, 14, 15.5, 17]]))
    single = TracedPrompt(**{**vars(prompt), "subject": (2,)})
    reduced = by_role(values, single, roles_of([prompt]))
    assert reduced[0, 1:3].isnan().all()
    assert reduced[0, 3] == 2


def test_roles_belong_to_a_mention() -> None:
    """The subject's last token in the question is not that in the model's own reply, nor that of a second mention."""
    prompt = TracedPrompt(
        fact_id="x",
        form="chat",
        text="",
        prefix="",
        token_ids=tuple(range(11)),
        tokens=tuple("abcdefghijk"),
        subject=(1, 3, 4, 8),
        answer_id=0,
        answer_token="x",
        reply_start=6,
    )
    assert [role_of(prompt, i) for i in range(11)] == [
        *("tokens before the subject", "last subject token", "tokens after the subject"),
        *("first subject token, second mention", "last subject token, second mention", "tokens after the subject"),
        *("tokens before the subject in the reply",) * 2,
        *("last subject token of the reply", "tokens after the subject in the reply", "last token"),
    ]
    silent = TracedPrompt(**{**vars(prompt), "subject": (1,)})
    assert role_of(silent, 7) == "tokens without the subject in the reply"
    order = roles_of([silent, prompt])
    assert order.index("last subject token") < order.index("last subject token, second mention")
    assert order.index("tokens without the subject in the reply") < order.index("last token") == len(order) - 1


def test_mean_and_error_leave_out_nan() -> None:
    nan = math.nan
    mean, error = mean_and_error(torch.tensor([[1.0, nan, nan], [3.0, 5.0, nan]]))
    torch.testing.assert_close(mean, torch.tensor([2.0, 5.0, nan]), equal_nan=True)
    torch.testing.assert_close(error, torch.tensor([1.0, nan, nan]), equal_nan=True)
    assert mean_and_error(torch.ones(1, 3))[1] is None


def test_several_facts_are_means_over_roles() -> None:
    long = capital("the city of Japan", "Tokyo", "Paris", id="long")
    known = FactSet([*FACTS, long], name="with a long subject")
    model = knowing(tiny_llama(tied=False, n_layers=4), known)
    options: dict[str, Any] = {"samples": 2, "form": "cloze", "pool": known}
    parts = [trace(model, fact, **options) for fact in (FRANCE, SPAIN, long)]
    found = trace(model, [FRANCE, SPAIN, long], **options)
    roles_there = roles_of(found.prompts)
    assert found.labels["position"] == found.roles == roles_there
    assert found.n == 3
    assert found.values.shape == (4, 5)  # no token is between the subject and the last one
    assert [p.fact_id for p in found.prompts] == ["france-capital", "spain-capital", "long"]
    assert found.provenance["facts"] == ["france-capital", "spain-capital", "long"]
    roles = torch.stack([by_role(p.values, p.prompts[0], roles_there) for p in parts])
    torch.testing.assert_close(found.per_fact, roles, equal_nan=True)
    last = roles_there.index("last token")
    assert float(found.values[3, last]) == pytest.approx(sum(float(p.values[3, -1]) for p in parts) / 3, abs=1e-5)
    middle = roles_there.index("middle subject tokens")
    assert float(found.values[1, middle]) == pytest.approx(float(roles[2, 1, middle]), abs=1e-6)  # only one has any
    assert found.clean == pytest.approx(sum(p.clean for p in parts) / 3, abs=1e-5)
    assert all("subject" in found.labels["position"][i] for i in found.subject)
    assert len(found.top(4, role="last subject token")) == 8  # each resid cell: ATTN and MLP


def test_two_forms_are_never_averaged() -> None:
    """One form in which the model says every answer is taken for all; where there is none the message says why."""
    both = trace(tiny(), [FRANCE, SPAIN], samples=1)
    assert [p.form for p in both.prompts] == ["chat", "chat"]
    cloze = replace(FACTS["japan-capital"], question="Where is Japan and why?")
    found = trace(tiny(), [FRANCE, cloze], samples=1)
    assert [p.form for p in found.prompts] == ["cloze", "cloze"]
    chat = replace(FRANCE, prompt="Where France is and why")
    why = r"in no one form \(in chat form .*\['japan-capital'\]; in cloze form .*\['france-capital'\]"
    with pytest.raises(ValueError, match=why):
        trace(tiny(), [chat, cloze], samples=1)
    with pytest.raises(ValueError, match="in no one form"):
        attribute(tiny(), chat, contrast=[cloze], samples=1, pool=FACTS, progress=False)


def test_in_chat_form_the_reply_has_roles_of_its_own() -> None:
    """A model that says "The capital of France is Paris"."""
    model, facts = replying(), capitals()[:2]
    found = trace(model, list(facts), form="chat", samples=1)
    assert "last subject token" in found.roles and "last subject token of the reply" in found.roles
    alone = trace(model, facts[0], form="chat", samples=1)
    for role in ("last subject token", "last subject token of the reply"):
        (at,) = [i for i in range(len(alone.prompts[0].token_ids)) if role_of(alone.prompts[0], i) == role]
        assert alone.prompts[0].tokens[at].strip() == "France"
        torch.testing.assert_close(alone.at(role=role), alone.values[:, at])
    assert not torch.allclose(alone.at(role="last subject token"), alone.at(role="last subject token of the reply"))
