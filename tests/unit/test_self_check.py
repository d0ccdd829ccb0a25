"""The self-check: what it finds, that it can find fault, and that a fault raises where it is used and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DiffLlamaConfig, MambaConfig
from transformers.models.llama import LlamaForCausalLM

import workbench as wb
from tests.helpers.tiny import N_VOCAB, TOKENS, loaded, random_edit, randomise, tiny_llama
from tests.helpers.tiny_facts import capitals, knowing, teach, tokenizer_from_files
from tests.helpers.traces import trace
from workbench.language.prompts import answer_ids, prompt_ids
from workbench.models.engine import Resumable
from workbench.models.layerwise import Layerwise
from workbench.models.load import LoadedModel
from workbench.tracing import self_check
from workbench.tracing.self_check import SelfCheckError, require

FACTS = capitals()
FRANCE = FACTS[0]
QUIET: dict[str, Any] = {"pool": FACTS, "progress": False}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def model() -> LoadedModel:
    return knowing(tiny_llama(tied=False, bias=True), FACTS)


def test_a_tested_model_passes_and_is_not_changed() -> None:
    checked = model()
    before = checked.fingerprint, [name for name, _ in checked.hf.named_modules()]
    support = checked.support
    assert support.passed and support.tested and support.failed == () and support.family == "Llama"
    assert repr(support) == "Support('tiny', Llama, tested family: all 8 checks passed)"
    for check in support.checks:
        assert abs(check.found - check.expected) <= check.allowed < 0.2 and " agrees: " in check.words
    assert support.to_frame()["check"].tolist() == [check.what for check in support.checks]
    with pytest.raises(KeyError, match="There is no check 'x'"):
        support["x"]  # pyright: ignore[reportArgumentType]
    assert (checked.fingerprint, [name for name, _ in checked.hf.named_modules()]) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in checked.hf.modules())


def test_the_numbers_are_of_something() -> None:
    """Each compares what is not 0, and a different model has different numbers."""
    one, other = model().support, loaded(tiny_llama(5)).support
    for name in ("direct", "trace", "heads", "resume", "lens", "gate"):
        assert abs(one[name].expected) > 10 * one[name].allowed
        assert one[name].expected != other[name].expected
    assert one["noise"].expected == 3.0 and one["groups"].allowed < 0.01


def test_each_check_is_made_once_and_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    whole = self_check._made
    monkeypatch.setattr(self_check, "_made", lambda base, name: made.append(name) or whole(base, name))
    checked = model()
    assert made == []
    for _ in range(2):
        trace(checked, corruption="swap")
    assert made == ["trace"]
    trace(checked)
    wb.attribute(checked, FRANCE, method="patching", **QUIET)
    assert made == ["trace", "noise"]
    wb.attribute(checked, FRANCE, **QUIET)
    wb.lens(checked, FRANCE)
    wb.lens_grid(checked, FRANCE)
    wb.ablate(checked, FRANCE, "L0MLP")
    assert made == ["trace", "noise", "resume", "lens"]
    edit = random_edit(checked, "L1H2 L1N5")
    for given in (edit, random_edit(checked, "L1KV1")):
        with wb.applied(checked, given) as edited:
            assert edited.support.model == "tiny"
            trace(edited)
    trace(checked, site="q", corruption="swap")
    assert sorted(made) == sorted(self_check._CHECKS), "each once, the edited model's are the base's"
    with torch.no_grad():
        checked.hf.model.norm.weight.mul_(1.5)
    require(checked, "lens")
    assert made[-1] == "lens" and made.count("lens") == 2, "other weights are another model"


# What is broken is found, where it is used


def test_too_little_noise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deviation of the embedding's weight, where the model multiplies embeddings by 12."""
    from workbench.tracing import corruption

    right = corruption.subject_deviation
    monkeypatch.setattr(corruption, "subject_deviation", lambda m, p: right(m, p) / 12)
    checked = model()
    with pytest.raises(SelfCheckError, match=r"the noise, .* differs: 0.25\d*, and plain forward passes give 3\. So "):
        trace(checked)
    with pytest.raises(ValueError, match="the noise"):
        wb.attribute(checked, FRANCE, **QUIET)
    trace(checked, corruption="swap")
    assert [check.name for check in checked.support.failed] == ["noise"]


def test_a_lens_that_is_not_the_models_output_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Resumable.unembed
    monkeypatch.setattr(Resumable, "unembed", lambda self, resid: 2 * right(self, resid))
    checked = model()
    for read in (wb.lens, wb.lens_grid):
        with pytest.raises(SelfCheckError, match=r"the last row of the lens differs: .* So lens and lens_grid would"):
            read(checked, FRANCE)
    assert "lens" in {check.name for check in checked.support.failed}


def test_a_wrong_resumed_pass_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Resumable.run

    def wrong(self: Any, resid: Tensor, *, start: int = 0, **options: Any) -> Tensor:
        return right(self, resid, start=max(0, start - 1), **options)

    monkeypatch.setattr(Resumable, "run", wrong)
    checked = model()
    for use in (lambda: wb.attribute(checked, FRANCE, **QUIET), lambda: wb.ablate(checked, FRANCE, "L0MLP")):
        with pytest.raises(SelfCheckError, match="a pass that is resumed at a layer or after a prefix differs"):
            use()


def test_heads_that_lie_elsewhere_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast path puts the entries of another head back."""
    right = Layerwise.parts
    monkeypatch.setattr(
        Layerwise, "parts", lambda self, site: None if (found := right(self, site)) is None else found.roll(1, 0)
    )
    checked = model()
    trace(checked)
    with pytest.raises(SelfCheckError, match=r"a patched head of the fast trace differs: .* So causal_trace of z, q"):
        trace(checked, site="k")


def test_a_gate_that_is_not_the_merged_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "fold", lambda *given: None)
    checked = model()
    edit = random_edit(checked, "L1N5")
    with pytest.raises(SelfCheckError, match="a gate, as an adapter and merged, differs"), wb.applied(checked, edit):
        pass
    with pytest.raises(SelfCheckError, match="So rewrite and applied would give wrong numbers"):
        wb.rewrite(checked, FRANCE, "L1N5", pool=FACTS, progress=False)


def test_what_cannot_be_measured_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, *given: Any) -> Tensor:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(Resumable, "stream", broken)
    checked = model()
    assert not checked.support["lens"].passed
    with pytest.raises(SelfCheckError, match=r"lens cannot be measured \(RuntimeError: no such thing\)"):
        wb.lens(checked, FRANCE)


# Families outside the table


class TwinForCausalLM(LlamaForCausalLM):
    """Llama under a name that no table has."""


class Bent(nn.Module):
    """In the place of a norm, and none: no scale makes it linear."""

    def forward(self, states: Tensor) -> Tensor:
        return states.tanh()


def taught(hf: Any) -> LoadedModel:
    """An untested model that says the capitals after their clozes."""
    checked = wb.load_model(hf, tokenizer=tokenizer_from_files(), name="other", untested=True)
    places = [(prompt_ids(checked, f.prompt, "cloze"), answer_ids(checked, f.answer, "cloze")[0]) for f in FACTS]
    ended = [([*ids, said], checked.tokenizer.eos_token_id) for ids, said in places]
    teach(hf, checked, [*places, *ended])
    return checked


def test_an_untested_family_is_taken_when_asked_for() -> None:
    llama = tiny_llama(tied=False, bias=True)
    twin = TwinForCausalLM(llama.config).eval().requires_grad_(False)
    twin.load_state_dict(llama.state_dict())
    with pytest.raises(ValueError, match=r"TwinForCausalLM is of no supported decoder family.*Supported: Llama, "):
        wb.load_model(twin, tokenizer=tokenizer_from_files())
    checked, own = taught(twin), knowing(llama, FACTS)
    assert checked.support.passed and not checked.support.tested
    assert repr(checked.support).startswith("Support('other', TwinForCausalLM, read as Llama, untested: all 8")
    for made in (checked, own):
        made.hf.lm_head.weight[:] = own.hf.lm_head.weight
    options: dict[str, Any] = {"form": "cloze", "samples": 2}
    assert torch.equal(trace(checked, **options).values, trace(own, **options).values)


def test_an_untested_model_without_known_names_is_refused() -> None:
    mamba: Any = AutoModelForCausalLM.from_config(
        MambaConfig(vocab_size=N_VOCAB, hidden_size=16, num_hidden_layers=1, state_size=4)
    )
    asked: tuple[dict[str, Any], ...] = ({}, {"untested": True})
    for options in asked:
        with pytest.raises(ValueError, match="MambaForCausalLM is refused: it has no attention"):
            wb.load_model(mamba, tokenizer=tokenizer_from_files(), **options)


def test_attention_that_is_not_what_the_cache_holds_is_refused_at_the_trace() -> None:
    sizes: dict[str, Any] = dict(
        hidden_size=48,
        intermediate_size=56,
        num_attention_heads=6,
        num_key_value_heads=2,
        num_hidden_layers=3,
        vocab_size=N_VOCAB,
        **TOKENS,
        tie_word_embeddings=False,
    )
    hf = randomise(AutoModelForCausalLM.from_config(DiffLlamaConfig(**sizes)), 0)
    with pytest.raises(ValueError, match="DiffLlamaForCausalLM is refused"):
        wb.load_model(hf, tokenizer=tokenizer_from_files())
    checked = taught(hf)
    message = (
        r"'other' \(DiffLlamaForCausalLM, untested\) is not computed as the workbench takes it to be: a patched cell "
        r"of the fast trace differs: -?\d.*, and plain forward passes give -?\d.*\. So causal_trace and "
    )
    with pytest.raises(ValueError, match=message):
        trace(checked, form="cloze")
    with pytest.raises(ValueError, match="a patched cell"):
        wb.attribute(checked, FRANCE, method="patching", form="cloze", **QUIET)
    groups = random_edit(checked, "L1KV1")
    with pytest.raises(ValueError, match="a gate on one key-value group's values differs"), wb.applied(checked, groups):
        pass
    assert {check.name for check in checked.support.failed} == {"trace", "heads", "groups"}
    # What is right is not refused: the resumed pass and the lens.
    assert wb.lens(checked, FRANCE, form="cloze").top[-1] == " Paris"


def test_direct_effects_that_do_not_add_up_are_refused_with_both_numbers() -> None:
    twin: Any = TwinForCausalLM(tiny_llama(tied=False).config)
    twin.model.norm = Bent()
    checked = taught(randomise(twin, 3))
    message = r"Direct effects do not add up in 'other' \(TwinForCausalLM\): .* write -?\d\S* logits .* give -?\d\S*\. "
    with pytest.raises(ValueError, match=message):
        wb.attribute(checked, FRANCE, method="dla", form="cloze", **QUIET)
    with pytest.raises(ValueError, match=message):
        wb.writes(checked, "L1H2", fact=FRANCE, form="cloze")
    with pytest.raises(SelfCheckError, match=r"the sum of all direct effects differs"):
        wb.writes(checked, "L1N5")
    assert {check.name for check in checked.support.failed} == {"direct"}
    assert float(trace(checked, form="cloze", samples=2).values.abs().max()) > 0


def test_dla_takes_the_logit_difference_apart_and_nothing_else() -> None:
    with pytest.raises(
        ValueError, match=r"method='dla' takes the logit difference apart.*metric='probability' is none"
    ):
        wb.attribute(model(), FRANCE, method="dla", metric="probability", **QUIET)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_precision_is_no_fault(dtype: torch.dtype) -> None:
    checked = loaded(tiny_llama(tied=False, bias=True).to(dtype))
    assert checked.support.passed, checked.support.to_frame().to_string()
