"""Causal traces against a slow loop over plain hooks, a model solved by hand, and TransformerLens."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import N_VOCAB, tiny_gpt2, tiny_llama, tiny_phi3
from tests.tiny_facts import by_hand, capital, capitals, knowing
from workbench import prompts
from workbench.facts import known_facts
from workbench.generation import Completion
from workbench.models import LoadedModel
from workbench.prompts import swapped, traced_prompt
from workbench.tracing.attribution import AttributionOptions, attribute
from workbench.tracing.causal import TraceOptions, causal_trace, default_window
from workbench.tracing.roles import ROLES, by_role, mean_and_error, role_of
from workbench.types import EffectMap, Fact, FactSet, TracedPrompt

FACTS = capitals()
FRANCE, ITALY, SPAIN = FACTS[0], FACTS[1], FACTS[2]
MAKERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tiny_llama(tied=False, bias=True, n_layers=4),
    "gpt2": lambda: tiny_gpt2(tie_word_embeddings=False, n_layers=4),
    "phi3": lambda: tiny_phi3(n_layers=4),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@lru_cache
def tiny(family: str = "llama") -> LoadedModel:
    return knowing(MAKERS[family](), FACTS)


def trace(model: LoadedModel, fact: Any = FRANCE, site: Any = "resid", **options: Any) -> EffectMap:
    return causal_trace(model, fact, site, **{"pool": FACTS, "progress": False, **options})


# The slow reference: plain hooks on the plain model, one cell and one sample at a time, from the first token on


@contextmanager
def hooked(hf: Any, changes: dict[str, tuple[bool, Callable[[Tensor], Tensor]]]) -> Iterator[None]:
    """Change module inputs (True) or outputs (False) for the length of a block."""
    handles = []
    for name, (on_input, change) in changes.items():
        module = hf.get_submodule(name)
        if on_input:
            handles.append(module.register_forward_pre_hook(lambda m, args, c=change: (c(args[0]), *args[1:])))
        else:
            handles.append(
                module.register_forward_hook(
                    lambda m, args, out, c=change: (c(out[0]), *out[1:]) if isinstance(out, tuple) else c(out)
                )
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def place(model: LoadedModel, site: str, layer: int) -> tuple[str, bool]:
    """The module of a site, and whether it is its input."""
    family = model.architecture.family
    path = f"{family.layers}.{layer}"
    return {
        "resid": (path, True),
        "attn": (f"{path}.{family.attention}", False),
        "mlp": (f"{path}.{family.mlp}", False),
    }[site]


def measure(logits: Tensor, prompt: TracedPrompt, metric: str) -> float:
    last = logits[0, -1].float()
    if metric == "probability":
        return float(last.softmax(-1)[prompt.answer_id])
    return float(last[prompt.answer_id] - last[prompt.other_id])


class SlowTrace:
    """A causal trace as the paper describes it."""

    def __init__(self, model: LoadedModel, prompt: TracedPrompt, corrupted: list[Tensor], metric: str) -> None:
        """``corrupted``: token embeddings [1, tokens, d_model] of every corrupted run."""
        self.model, self.prompt, self.corrupted, self.metric = model, prompt, corrupted, metric
        self.ids = torch.tensor([prompt.token_ids])
        self.clean: dict[tuple[str, int], Tensor] = {}
        changes = {}
        for site in ("resid", "attn", "mlp"):
            for layer in range(model.shape.n_layers):
                name, on_input = place(model, site, layer)
                if site == "resid":
                    changes[name] = (on_input, self._keep((site, layer)))
        with torch.no_grad(), hooked(model.hf, changes):
            self.clean_value = measure(model.hf(self.ids).logits, prompt, metric)
        outputs = {
            place(model, site, layer)[0]: (False, self._keep((site, layer)))
            for site in ("attn", "mlp")
            for layer in range(model.shape.n_layers)
        }
        with torch.no_grad(), hooked(model.hf, outputs):
            model.hf(self.ids)
        self.baselines = [self._run(c, {}) for c in corrupted]

    def _keep(self, key: tuple[str, int]) -> Callable[[Tensor], Tensor]:
        def keep(value: Tensor) -> Tensor:
            self.clean[key] = value.clone()
            return value

        return keep

    def _run(self, embeddings: Tensor, changes: dict[str, tuple[bool, Callable[[Tensor], Tensor]]]) -> float:
        with torch.no_grad(), hooked(self.model.hf, changes):
            return measure(self.model.hf(inputs_embeds=embeddings).logits, self.prompt, self.metric)

    def cell(self, site: str, layer: int, position: int, window: int = 1) -> float:
        """Mean indirect effect of one cell; a window of an even width reaches one layer further down."""
        n = self.model.shape.n_layers
        below = window // 2
        layers = [at for at in range(layer - below, layer - below + window) if 0 <= at < n]

        def restore(at: int) -> Callable[[Tensor], Tensor]:
            def change(value: Tensor) -> Tensor:
                value = value.clone()
                value[0, position] = self.clean[site, at][0, position]
                return value

            return change

        changes = {}
        for at in layers:
            name, on_input = place(self.model, site, at)
            changes[name] = (on_input, restore(at))
        effects = [self._run(c, changes) - b for c, b in zip(self.corrupted, self.baselines, strict=True)]
        return sum(effects) / len(effects)

    def all_cells(self, site: str, window: int = 1) -> Tensor:
        return torch.tensor(
            [
                [self.cell(site, layer, position, window) for position in range(len(self.prompt.token_ids))]
                for layer in range(self.model.shape.n_layers)
            ]
        )


def noisy(model: LoadedModel, prompt: TracedPrompt, where: Any, samples: int, noise: float, seed: int) -> list[Tensor]:
    """Token embeddings with noise of ``noise`` times the embeddings' standard deviation on some positions."""
    table = model.hf.get_input_embeddings().weight
    sigma = noise * table.float().std().item()
    draw = torch.randn(samples, len(where), table.shape[1], generator=torch.Generator().manual_seed(seed)) * sigma
    clean = table[torch.tensor([prompt.token_ids])].detach()
    out = []
    for sample in draw:
        one = clean.clone()
        one[0, list(where)] += sample
        out.append(one)
    return out


def embedded(model: LoadedModel, ids: Any) -> Tensor:
    return model.hf.get_input_embeddings().weight[torch.tensor([list(ids)])].detach()


SITES = pytest.mark.parametrize(("site", "window"), [("resid", 1), ("mlp", 1), ("mlp", 3), ("attn", 2), ("attn", 4)])


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("metric", ["probability", "logit_diff"])
@SITES
def test_noise_equals_the_slow_loop(family: str, metric: Any, site: str, window: int) -> None:
    model = tiny(family)
    form = "cloze" if window != 3 else "chat"
    prompt = traced_prompt(model, FRANCE, form=form)
    slow = SlowTrace(model, prompt, noisy(model, prompt, prompt.subject, 3, 2.0, 5), metric)
    found = trace(
        model,
        site=site,
        metric=metric,
        form=form,
        samples=3,
        noise=2.0,
        seed=5,
        window=None if site == "resid" else window,
    )
    torch.testing.assert_close(found.values, slow.all_cells(site, window), atol=1e-4, rtol=0)
    assert found.clean == pytest.approx(slow.clean_value, abs=1e-4)
    assert found.corrupted == pytest.approx(sum(slow.baselines) / 3, abs=1e-4)
    assert found.values.abs().max() > (1e-4 if metric == "probability" else 0.01)


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("metric", ["probability", "logit_diff"])
@SITES
def test_swap_equals_the_slow_loop(family: str, metric: Any, site: str, window: int) -> None:
    model = tiny(family)
    form = "chat" if window == 2 else "cloze"
    prompt = swapped(model, FRANCE, traced_prompt(model, FRANCE, form=form), SPAIN)
    clean = traced_prompt(model, FRANCE, form=form)
    assert sum(a != b for a, b in zip(clean.token_ids, prompt.token_ids, strict=True)) == 1
    shown = TracedPrompt(**{**vars_of(clean), "other_id": prompt.other_id})
    slow = SlowTrace(model, shown, [embedded(model, prompt.token_ids)], metric)
    found = trace(
        model,
        site=site,
        metric=metric,
        form=form,
        corruption="swap",
        partner=SPAIN,
        window=None if site == "resid" else window,
    )
    torch.testing.assert_close(found.values, slow.all_cells(site, window), atol=1e-4, rtol=0)
    assert found.clean == pytest.approx(slow.clean_value, abs=1e-4)
    assert found.corrupted == pytest.approx(slow.baselines[0], abs=1e-4)
    assert found.n == 1
    assert found.stderr is None
    if metric == "logit_diff":  # 14 for the answer and 0 for the partner's, and the other way round
        assert found.clean == pytest.approx(14, abs=1e-2)
        assert found.corrupted == pytest.approx(-14, abs=1e-2)


def vars_of(prompt: TracedPrompt) -> dict[str, Any]:
    return dict(vars(prompt))


def test_the_batch_size_does_not_matter() -> None:
    whole = trace(tiny(), site="mlp", samples=3)
    for rows in (1, 17, 40):
        found = trace(tiny(), site="mlp", samples=3, max_rows=rows)
        torch.testing.assert_close(found.values, whole.values, atol=1e-5, rtol=0)


def test_samples_and_their_error() -> None:
    found = trace(tiny(), samples=4, form="cloze")
    assert found.n == 4
    assert found.per_fact is not None
    assert found.per_fact.shape == (4, 4, 5)
    torch.testing.assert_close(found.per_fact.mean(0), found.values)
    torch.testing.assert_close(found.stderr, found.per_fact.std(0) / 2)
    one = trace(tiny(), samples=1, form="cloze")
    assert one.stderr is None


def test_seeds() -> None:
    a, b, c = (trace(tiny(), samples=2, seed=s) for s in (0, 0, 1))
    assert torch.equal(a.values, b.values)
    assert not torch.equal(a.values, c.values)


def test_what_a_result_says_about_itself() -> None:
    found = trace(tiny(), site="mlp", samples=2, window=2, form="chat")
    (prompt,) = found.prompts
    assert found.axes == ("layer", "position")
    assert found.labels["layer"] == ("L0", "L1", "L2", "L3")
    assert found.labels["position"] == prompt.tokens
    assert "".join(prompt.tokens) == prompt.text
    assert [prompt.tokens[i] for i in found.subject] == [" France"]
    assert prompt.text.endswith("<|im_start|>assistant\n")
    assert (prompt.form, prompt.prefix, prompt.answer_token, prompt.other_token) == ("chat", "", "Paris", "Rome")
    assert found.provenance["settings"]["window"] == 2
    assert found.provenance["settings"]["seed"] == 0
    assert found.provenance["fingerprint"] == tiny().fingerprint
    assert (found.unit, found.method, found.metric) == ("mlp", "noise", "probability")
    swap = trace(tiny(), corruption="swap", partner=SPAIN)
    assert swap.prompts[0].partner == "spain-capital"
    assert "Spain" in (swap.prompts[0].partner_text or "")
    assert "France" in swap.prompts[0].text
    assert swap.prompts[0].other_token == "Madrid"


def test_restoring_everything_that_was_corrupted_brings_the_answer_back() -> None:
    """One subject token: restoring its embedding is the clean run."""
    found = trace(tiny(), samples=2, form="cloze")
    (position,) = found.subject
    assert float(found.values[0, position]) == pytest.approx(found.clean - found.corrupted, abs=1e-5)
    assert not found.values[:, :position].any()  # tokens before the subject do not see it


# A model solved by hand (see tests.tiny_facts.by_hand)

T = 5
PARIS, MADRID = 4.0, -4.0


def hand_trace(site: Any = "resid", **options: Any) -> EffectMap:
    return trace(by_hand(), site=site, **{"form": "cloze", "corruption": "swap", "partner": SPAIN, **options})


def test_the_hand_made_model_says_paris() -> None:
    model = by_hand()
    prompt = traced_prompt(model, FRANCE, form="cloze")
    assert prompt.tokens == ("The", " capital", " of", " France", " is")
    assert prompt.subject == (3,)
    logits = model.hf(torch.tensor([prompt.token_ids])).logits[0, -1]
    expected = torch.zeros(N_VOCAB)
    expected[prompt.answer_id] = PARIS
    expected[model.token_ids(" Madrid")[0]] = MADRID
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_residual_trace_by_hand() -> None:
    """Restoring the subject before layer 1, or the last token after it, takes Paris - Madrid from -8 to +8."""
    found = hand_trace(metric="logit_diff")
    expected = torch.zeros(3, T)
    expected[0, 3] = expected[1, 3] = expected[2, 4] = 16
    torch.testing.assert_close(found.values, expected, atol=1e-4, rtol=0)
    assert found.clean == pytest.approx(8, abs=1e-4)
    assert found.corrupted == pytest.approx(-8, abs=1e-4)


def test_residual_trace_by_hand_as_probability() -> None:
    """P(Paris) is e^4 / (e^4 + e^-4 + N - 2) in the clean run and e^-4 / (the same sum) in the corrupted one."""
    total = math.exp(4) + math.exp(-4) + N_VOCAB - 2
    clean, corrupted = math.exp(4) / total, math.exp(-4) / total
    found = hand_trace()
    expected = torch.zeros(3, T)
    expected[0, 3] = expected[1, 3] = expected[2, 4] = clean - corrupted
    torch.testing.assert_close(found.values, expected, atol=1e-6, rtol=0)
    assert found.clean == pytest.approx(clean, abs=1e-6)
    assert found.corrupted == pytest.approx(corrupted, abs=1e-6)


@pytest.mark.parametrize(("window", "rows"), [(1, [1]), (2, [1, 2]), (3, [0, 1, 2])])
def test_attention_trace_by_hand(window: int, rows: list[int]) -> None:
    """Only a window that holds layer 1 matters, at the last token (a window of 2 at layer 2 is 1 and 2)."""
    found = hand_trace("attn", metric="logit_diff", window=window)
    expected = torch.zeros(3, T)
    expected[rows, 4] = 16
    torch.testing.assert_close(found.values, expected, atol=1e-4, rtol=0)


def test_mlp_trace_by_hand() -> None:
    assert not hand_trace("mlp", metric="logit_diff", window=2).values.any()


def test_the_planted_path_comes_first() -> None:
    assert str(hand_trace("attn", metric="logit_diff", window=1).top(1)) == "L1ATTN"
    noise = hand_trace("attn", corruption="noise", partner=None, metric="logit_diff", window=1, samples=20)
    assert str(noise.top(1)) == "L1ATTN"
    assert float(noise.values[1, 4]) == pytest.approx(noise.clean - noise.corrupted, abs=1e-4)
    assert float(noise.values[[0, 2]].abs().max()) < 1e-5


def test_nothing_is_found_for_a_wrong_answer() -> None:
    """Rome's logit is 0 whatever the subject is, and so is its share: e^4 + e^-4 does not change."""
    found = hand_trace(token="target")
    assert found.prompts[0].answer_token == " Rome"
    assert found.clean == pytest.approx(1 / (math.exp(4) + math.exp(-4) + N_VOCAB - 2), abs=1e-7)
    assert float(found.values.abs().max()) < 1e-7


def test_nothing_is_found_at_the_subject_for_noise_on_other_tokens() -> None:
    found = hand_trace(corruption="noise", partner=None, positions=[0, 1], samples=8, metric="logit_diff")
    assert float(found.values[:, 3].abs().max()) < 1e-6
    own = hand_trace(corruption="noise", partner=None, samples=8, metric="logit_diff")
    assert float(own.values[0, 3]) > 1


# Choice of the text and the token


def test_the_form_is_the_first_in_which_the_model_says_the_answer() -> None:
    model = by_hand()  # says " Paris" after anything with France; in chat form too
    assert traced_prompt(tiny(), FRANCE).form == "chat"
    assert traced_prompt(tiny(), FRANCE, form="cloze").answer_token == " Paris"
    assert traced_prompt(model, FRANCE).answer_token == " Paris"


def test_a_model_that_does_not_know_shows_what_it_says() -> None:
    wrong = capital("France", "Tokyo", "Rome")
    with pytest.raises(ValueError, match=r"does not contain 'Tokyo'.*chat form says 'Paris'; cloze form says 'Paris'"):
        trace(tiny(), wrong)
    with pytest.raises(ValueError, match=r"no place to trace \(cloze form says 'Paris'\)"):
        trace(tiny(), wrong, form="cloze")


def test_token_target_measures_the_target_at_the_same_place() -> None:
    answer, target = (traced_prompt(tiny(), FRANCE, token=t) for t in ("answer", "target"))  # type: ignore[arg-type]
    assert answer.token_ids == target.token_ids
    assert (answer.answer_token, answer.other_token) == ("Paris", "Rome")
    assert (target.answer_token, target.other_token) == ("Rome", "Paris")
    found = trace(tiny(), token="target", metric="logit_diff", form="cloze")
    assert found.clean == pytest.approx(-trace(tiny(), metric="logit_diff", form="cloze").clean, abs=1e-4)


def said(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Make every completion read so."""
    from workbench.generation import Completion

    ids = tuple(tiny().token_ids(text))
    monkeypatch.setattr(
        "workbench.prompts.greedy_answers", lambda model, prompts, **_: [Completion(text, ids)] * len(prompts)
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


# Several facts


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
    assert roles[:6] == ["before", "before", "first subject token", middle, middle, "last subject token"]
    assert roles[6:] == ["after", "after", "last token"]
    values = torch.arange(18.0).view(2, 9)
    reduced = by_role(values, prompt)
    torch.testing.assert_close(reduced, torch.tensor([[0.5, 2, 3.5, 5, 6.5, 8], [9.5, 11, 12.5, 14, 15.5, 17]]))
    single = TracedPrompt(**{**vars_of(prompt), "subject": (2,)})
    reduced = by_role(values, single)
    assert reduced[0, 1:3].isnan().all()
    assert reduced[0, 3] == 2


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
    assert found.labels["position"] == ROLES
    assert found.n == 3
    assert found.values.shape == (4, 6)
    assert [p.fact_id for p in found.prompts] == ["france-capital", "spain-capital", "long"]
    assert found.provenance["facts"] == ["france-capital", "spain-capital", "long"]
    roles = torch.stack([by_role(p.values, p.prompts[0]) for p in parts])
    torch.testing.assert_close(found.per_fact, roles, equal_nan=True)
    last = ROLES.index("last token")
    assert float(found.values[3, last]) == pytest.approx(sum(float(p.values[3, -1]) for p in parts) / 3, abs=1e-5)
    middle = ROLES.index("middle subject tokens")
    assert float(found.values[1, middle]) == pytest.approx(float(roles[2, 1, middle]), abs=1e-6)  # only one has any
    assert found.clean == pytest.approx(sum(p.clean for p in parts) / 3, abs=1e-5)
    assert all("subject" in found.labels["position"][i] for i in found.subject)
    assert len(found.top(4)) == 8  # each resid cell: ATTN and MLP


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "head"}, r"site must be one of \('resid', 'mlp', 'attn'\), got 'head'"),
        ({"corruption": "zero"}, "corruption must be one of .*got 'zero'"),
        ({"metric": "loss"}, "metric must be one of .*got 'loss'"),
        ({"form": "plain"}, "form must be 'chat' or 'cloze', got 'plain'"),
        ({"token": "other"}, "token must be 'answer' or 'target', got 'other'"),
        ({"window": 3}, "window= is for the sites 'mlp' and 'attn'"),
        ({"site": "mlp", "window": 0}, "window must be from 1 to the model's 4 layers, got 0"),
        ({"site": "mlp", "window": 5}, "window must be from 1 to the model's 4 layers, got 5"),
        ({"samples": 0}, "noise needs samples >= 1 and noise > 0, got samples=0"),
        ({"noise": -1.0}, "noise > 0, got .*noise=-1.0"),
        ({"positions": [99]}, r"positions must be within 0 to 4, got \[99\]"),
        ({"positions": [-1]}, "positions must be within 0 to 4"),
        ({"positions": []}, "positions must be within 0 to 4"),
        ({"corruption": "swap", "positions": [1]}, "a swap always replaces the subject"),
        ({"fact": []}, "at least one fact, got none"),
        ({"fact": [FRANCE, SPAIN], "partner": ITALY}, "partner= and positions= are for one fact"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(tiny(), **{"form": "cloze", **options})


def test_a_swap_partner_of_another_length_names_both_lengths() -> None:
    long = capital("the city", "Rome", "Paris", id="long")
    with pytest.raises(ValueError, match=r"swap subject 'the city' \(long\) has \d+ tokens where 'France' has 1"):
        trace(tiny(), corruption="swap", partner=long)


def test_a_swap_partner_with_the_same_answer() -> None:
    with pytest.raises(ValueError, match="has an answer with the same first token 'Paris'"):
        trace(tiny(), corruption="swap", partner=capital("Japan", "Paris", "Rome"))


def test_no_swap_partner_says_how_to_give_one() -> None:
    with pytest.raises(ValueError, match=r"No fact of the relation 'capital' in the pool.*partner=Fact\(...\)"):
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


def test_the_default_partner_does_not_depend_on_what_was_measured_before() -> None:
    model = tiny()
    before = trace(model, corruption="swap").prompts[0].partner
    known_facts(model, FACTS, form="any", progress=False)
    assert trace(model, corruption="swap").prompts[0].partner == before


def test_the_default_window() -> None:
    assert default_window(48) == 10
    assert default_window(30) == 6
    assert default_window(3) == 1
    assert default_window(1) == 1


# On the bundled model


def sample_of_cells(model: Any, prompt: TracedPrompt, n: int) -> list[tuple[int, int]]:
    """Cells from the subject on (before it every effect is 0), drawn by seed."""
    tokens = range(prompt.subject[0], len(prompt.token_ids))
    cells = [(layer, position) for layer in range(model.shape.n_layers) for position in tokens]
    return random.Random(0).sample(cells, n)


@pytest.mark.model
@pytest.mark.parametrize("site", ["resid", "mlp", "attn"])
def test_bundled_model_equals_the_slow_loop(model: Any, facts: FactSet, site: Any) -> None:
    fact: Fact = facts["france-capital"]
    prompt = traced_prompt(model, fact, form="cloze")
    slow = SlowTrace(model, prompt, noisy(model, prompt, prompt.subject, 2, 3.0, 0), "probability")
    found = causal_trace(model, fact, site, form="cloze", samples=2, progress=False)
    assert found.clean == pytest.approx(slow.clean_value, abs=1e-4)
    window = 1 if site == "resid" else default_window(30)
    for layer, position in sample_of_cells(model, prompt, 12):
        assert float(found.values[layer, position]) == pytest.approx(
            slow.cell(site, layer, position, window), abs=1e-4
        ), (layer, position)


@pytest.mark.model
def test_bundled_model_equals_transformer_lens(model: Any, facts: FactSet) -> None:
    import pandas as pd
    from transformer_lens.patching import get_act_patch_resid_pre

    fact = facts["france-capital"]
    found = causal_trace(model, fact, form="cloze", corruption="swap", metric="logit_diff", progress=False)
    (prompt,) = found.prompts
    partner = swapped(model, fact, traced_prompt(model, fact, form="cloze"), facts[prompt.partner])

    def difference(logits: Tensor) -> Tensor:
        return logits[0, -1, prompt.answer_id] - logits[0, -1, prompt.other_id]

    cells = sample_of_cells(model, prompt, 8)
    with torch.no_grad():
        _, cache = model.bridge.run_with_cache(
            torch.tensor([prompt.token_ids]), names_filter=lambda name: name.endswith("hook_resid_pre")
        )
        patched = get_act_patch_resid_pre(
            model.bridge,
            torch.tensor([partner.token_ids]),
            cache,
            difference,
            index_axis_names=None,
            index_df=pd.DataFrame(cells, columns=["layer", "pos"]),
        )
    for (layer, position), value in zip(cells, patched.flatten().tolist(), strict=True):
        assert float(found.values[layer, position]) == pytest.approx(value - found.corrupted, abs=1e-4)


def test_a_bare_space_is_no_answers_first_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer that writes " 5" as a space and a digit: the digit is the first token; a space is never traced."""
    texts = {1: " ", 2: "5"}
    model: Any = SimpleNamespace(
        token_ids=lambda text: [1, 2] if text == " 5" else [1],
        tokenizer=SimpleNamespace(decode=lambda ids: "".join(texts[i] for i in ids)),
    )
    assert prompts.first_token(model, "5") == 2
    with pytest.raises(ValueError, match="has no token besides spaces"):
        prompts.first_token(model, "?")
    said = Completion(" 5", (1, 2))
    with pytest.raises(ValueError, match=r"the traced token ' ' is a bare space"):
        prompts._build(model, FRANCE, "chat", [2], said, 0, "answer")


@pytest.mark.parametrize(
    ("function", "options"), [(causal_trace, TraceOptions), (attribute, AttributionOptions)], ids=["trace", "attribute"]
)
def test_type_checkers_know_every_option(function: Any, options: Any) -> None:
    """Of several sites or units too: the overloads take the function's own options."""
    own = {name for name, p in inspect.signature(function).parameters.items() if p.kind == p.KEYWORD_ONLY}
    assert own == set(options.__annotations__)
