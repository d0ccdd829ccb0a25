"""The lens: by hand on a hand-set model, equal to the model's own hidden states, and what the readings mean."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.helpers.tiny import N_VOCAB, tiny_gpt2, tiny_llama, tiny_phi3
from tests.helpers.tiny_facts import by_hand, capital, capitals, edit_of, knowing, some_gates
from workbench.editing.applied import applied
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.plots import lens_figure
from workbench.tracing.lens import lens
from workbench.types import Lens, TracedPrompt

FRANCE = capital("France", "Paris", "Madrid")


def test_by_hand() -> None:
    """Up to layer 0 all logits are 0; layer 1 writes +e2, which is 4 for Paris and -4 for Madrid (see ``by_hand``)."""
    found = lens(by_hand(), FRANCE, form="cloze")
    total = math.exp(4) + math.exp(-4) + N_VOCAB - 2
    flat = 1 / N_VOCAB
    assert found.labels == ("in", "L0", "L1", "L2")
    assert found.tokens == {"old": " Paris", "new": " Madrid", "refusal": " I"}
    assert found.probabilities["old"] == pytest.approx((flat, flat, math.exp(4) / total, math.exp(4) / total))
    assert found.probabilities["new"] == pytest.approx((flat, flat, math.exp(-4) / total, math.exp(-4) / total))
    assert found.probabilities["refusal"] == pytest.approx((flat, flat, 1 / total, 1 / total))
    assert found.ranks["old"] == (0, 0, 0, 0)
    assert found.ranks["new"] == (0, 0, N_VOCAB - 1, N_VOCAB - 1)
    assert found.ranks["refusal"] == (0, 0, 1, 1)
    assert found.top[2:] == (" Paris", " Paris")
    assert (found.turn, found.first_win, found.pretends) == ("L1", None, False)
    assert found.latent("old") == pytest.approx(0, abs=1e-6)


def test_by_hand_after_an_edit() -> None:
    """A gate of -1 on the one head that writes turns Paris into Madrid, in layer 1."""
    model = by_hand()
    gate = torch.ones(8)
    gate[:4] = -1
    with applied(model, edit_of(model, {(1, "z"): gate}, fact=FRANCE)) as edited:
        found = lens(edited, FRANCE, form="cloze")
    assert found.stage == "learn"
    assert found.ranks["new"][2:] == (0, 0)
    assert (found.turn, found.first_win, found.pretends) == ("L1", "L1", False)
    assert found.prompt == lens(model, FRANCE, form="cloze").prompt, "both are read on the base's text"


@pytest.mark.parametrize(
    "hf",
    [
        lambda: tiny_llama(tied=False),
        lambda: tiny_gpt2(tie_word_embeddings=False, n_positions=512),
        lambda: tiny_phi3(tie_word_embeddings=False),
    ],
    ids=["llama", "gpt2", "phi3"],
)
def test_equals_the_models_own_hidden_states(hf: Any) -> None:
    model = knowing(hf())
    edit = edit_of(model, some_gates(model, (0, "z"), (1, "post"), (2, "z")))
    place = traced_prompt(model, edit.facts[0])
    norms = {"GPT2LMHeadModel": "transformer.ln_f"}
    with applied(model, edit) as edited:
        for one in (model, edited):
            found = lens(one, edit.facts[0])
            with torch.no_grad():
                out = one.hf(torch.tensor([place.token_ids]), output_hidden_states=True)
                norm = one.hf.get_submodule(norms.get(type(model.hf).__name__, "model.norm"))
                rows = [norm(h[0, -1]) for h in out.hidden_states[:-1]]
                slow = torch.stack([one.hf.lm_head(r) for r in rows] + [out.logits[0, -1]]).softmax(-1)
            expected = slow[:, place.answer_id].tolist()
            assert found.probabilities["old"] == pytest.approx(expected, rel=1e-3, abs=1e-9)
            assert len(found.top) == model.shape.n_layers + 1


def test_the_model_is_as_it_was() -> None:
    model = knowing(tiny_llama(tied=False))
    before = model.fingerprint, [n for n, _ in model.hf.named_modules()], model.hf.training
    lens(model, capitals()[0])
    assert (model.fingerprint, [n for n, _ in model.hf.named_modules()], model.hf.training) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.runner.modules())


def test_refusal_text_and_bad_input() -> None:
    model: LoadedModel = knowing(tiny_llama(tied=False))
    assert lens(model, capitals()[0], refusal=" not sure").tokens["refusal"] == " not"
    with pytest.raises(ValueError, match="no token besides spaces"):
        lens(model, capitals()[0], refusal="  ")
    with pytest.raises(ValueError, match="does not contain 'Berlin'"):
        lens(model, capital("France", "Berlin", "Rome"))


def reading(
    old: list[float],
    new: list[float],
    ranks: list[int] | None = None,
    stage: str = "learn",
    new_ranks: list[int] | None = None,
) -> Lens:
    prompt = TracedPrompt(
        fact_id="<b>x</b>",
        form="chat",
        text="t",
        prefix="",
        token_ids=(1,),
        tokens=("<script>alert(1)</script>",),
        subject=(0,),
        answer_id=1,
        answer_token="a",
    )
    zero = (0,) * len(old)
    return Lens(
        prompt=prompt,
        stage=stage,
        tokens={"old": "<i>o</i>", "new": "n", "refusal": "r"},
        probabilities={"old": tuple(old), "new": tuple(new), "refusal": (0.01,) * len(old)},
        ranks={
            "old": tuple(ranks) if ranks else zero,
            "new": tuple(new_ranks) if new_ranks else zero,
            "refusal": (500,) * len(old),
        },
        top=("<img src=x>",) * len(old),
    )


def test_pretending_turn_and_latent() -> None:
    found = reading([0.1, 0.5, 0.6, 0.2], [0.05, 0.1, 0.1, 0.7])
    assert found.pretends
    assert found.old_leads == ("in", "L0", "L1")
    assert found.turn == "L2" == found.first_win
    assert found.latent("old") == pytest.approx(0.4)
    assert found.latent("new") == pytest.approx(-0.6)
    assert found.verdict.startswith("pretends to forget: the old answer leads at 3 of the layers in to L1")
    assert found.finding.endswith("; P(old) ends 0.40 below its highest; the new answer wins first at L2")
    kept = reading([0.1, 0.1, 0.6, 0.6], [0.2, 0.2, 0.1, 0.1])
    assert (kept.pretends, kept.turn) == (False, "L1")
    assert kept.verdict == "the old answer leads at the end, from L1 on"
    never = reading([0.1, 0.3, 0.6, 0.6], [0.05, 0.05, 0.1, 0.1])
    assert never.finding == f"{never.verdict}; P(old) is highest at the end; the new answer never wins"


def test_a_lead_far_from_the_top_is_no_trace() -> None:
    """Ahead of the new answer at rank 5,000 means nothing in early layers."""
    found = reading([0.1, 0.5, 0.6, 0.2], [0.05, 0.1, 0.1, 0.7], ranks=[5000, 10, 10, 3])
    assert not found.pretends
    assert found.verdict.startswith("no sign of hiding")
    assert reading([0.1, 0.5, 0.6, 0.2], [0.05, 0.1, 0.1, 0.7], ranks=[5000, 9, 10, 3]).pretends


def test_another_token_at_the_end() -> None:
    """None of the three is what the model says: a lead among them that nobody sees decides nothing."""
    hidden = reading([0.0, 0.5, 0.6, 0.001], [0, 0, 0, 0.0005], ranks=[9, 0, 0, 300], new_ranks=[9, 9, 9, 400])
    assert hidden.says is None
    assert hidden.pretends
    assert hidden.verdict.startswith(
        "pretends to forget: the old answer leads at 2 of the layers L0 to L1, then another"
    )
    assert hidden.verdict.endswith("then another token at the end, '<img src=x>'")


def test_what_rises_to_the_end_is_not_taken_back() -> None:
    """The old answer is likeliest at the end, and another token is likelier there still: nothing is hidden."""
    found = reading([0.0, 0.02, 0.02, 0.087], [0, 0, 0, 0.091], ranks=[90, 6, 7, 2], new_ranks=[90, 90, 90, 1])
    assert (found.says, found.pretends) == (None, False)
    assert found.latent("old") < 0
    assert found.finding.startswith(
        "nothing is taken back: the old answer leads at 2 of the layers L0 to L1, then anot"
    )
    assert "P(old) is highest at the end" in found.finding
    nearly = reading([0.0, 0.02, 0.015], [0, 0, 0.9], ranks=[90, 6, 2])
    assert (nearly.says, nearly.pretends) == ("new", False), "less than TAKEN_BACK"


def test_a_tie_at_the_end() -> None:
    tie = reading([0.1, 0.5, 0.3], [0.1, 0.1, 0.3])
    assert (tie.says, tie.pretends) == (None, True)
    assert tie.verdict.endswith("then no answer at the end")


def test_frame_and_figure() -> None:
    one, two = reading([0.1, 0.5, 0.2], [0.05, 0.1, 0.7]), reading([0.1, 0.5, 0.6], [0.05, 0.1, 0.1], stage="base")
    frame = one.to_frame()
    assert frame.p_old.tolist() == [0.1, 0.5, 0.2]
    assert frame.layer.tolist() == ["in", "L0", "L1"]
    figure = one.plot(two)
    assert len(figure.data) == 12
    text = figure.to_json()
    for hostile in ("<i>", "<img", "<script", "<b>x</b>"):
        assert hostile not in text.replace("\\u003c", "<")
    with pytest.raises(ValueError, match="of one model"):
        lens_figure([one, reading([0.1, 0.2], [0.2, 0.1])])
    with pytest.raises(ValueError, match="of one model"):
        lens_figure([])


def test_an_answer_settles_where_it_stays_the_likeliest_of_all_tokens() -> None:
    assert reading([0.1, 0.5, 0.6, 0.7], [0.0] * 4, ranks=[0, 3, 0, 0]).settles() == "L1"
    assert reading([0.1, 0.5, 0.6, 0.7], [0.0] * 4, ranks=[0, 0, 0, 2]).settles() is None
    both = reading([0.1] * 4, [0.2] * 4, ranks=[0] * 4, new_ranks=[9, 0, 0, 0])
    assert (both.settles("old"), both.settles("new")) == ("in", "L0")
