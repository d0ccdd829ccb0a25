"""The tuned lens: exact where an affine map is exact, better on texts it has not seen, kept, and refused elsewhere."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import workbench as wb
from tests.helpers.doc_pages import unwrapped
from tests.helpers.mistyped import mistyped
from tests.helpers.tiny_facts import FAMILIES, MAKERS, capitals, edit_of, knowing, some_gates
from workbench.facts.ordinary_texts import TextGroup
from workbench.language.prompts import traced_prompt
from workbench.models.engine import Resumable
from workbench.models.load import LoadedModel
from workbench.tracing.lens_fit import LensFit, Sums, batches_of, divergence, split, work_of
from workbench.tracing.tuned_lens import lens_of
from workbench.types.cancelling import Cancelled
from workbench.types.lens import row_labels

FACTS = capitals()
TEXTS = [
    f"The capital of {a} is {b}." for a in ("France", "Spain", "Italy", "Japan") for b in ("Paris", "Rome", "Madrid")
]
MORE = [f"{text} What is the capital of {name}?" for text in TEXTS for name in ("Germany", "France")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def fitted(model: LoadedModel, **options: Any) -> wb.TunedLens:
    return wb.tuned_lens(model, texts=[*TEXTS, *MORE], progress=False, **options)


def test_least_squares_finds_an_affine_map() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(500, 7) + 3, torch.randn(7, 7), torch.randn(7)
    sums = Sums(7, torch.full((7,), 2.5))
    for part in x.split(90):
        sums.add(part, part @ weight + bias)
    a, b = sums.solved(0.0)
    torch.testing.assert_close(a, weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(b, bias, atol=1e-3, rtol=1e-3)
    drawn, _ = sums.solved(1e6)
    assert drawn.abs().max() < 1e-4, "a strong ridge leaves the logit lens"


@FAMILIES
def test_states_are_those_of_single_texts(family: str) -> None:
    """Texts of unlike length are padded: neither padding nor first tokens count."""
    model = knowing(MAKERS[family]())
    ids = [tuple(model.tokenizer(text)["input_ids"]) for text in (TEXTS[0], MORE[0], TEXTS[5])]
    groups = [TextGroup(tuple(ids), 1)]

    class Bar:
        def update(self, n: int) -> None: ...

    found = torch.cat(list(LensFit(model, Resumable(model), Bar())._states(groups)), 1)
    expected: list[torch.Tensor] = []
    for text in sorted(ids, key=len, reverse=True):
        with torch.no_grad():
            hidden = model.hf(torch.tensor([text]), output_hidden_states=True).hidden_states
        expected.append(torch.stack([h[0, 1:] for h in hidden[:-1]]))
    torch.testing.assert_close(found[:-1], torch.cat(expected, 1), atol=1e-4, rtol=1e-4)


def test_it_is_closer_to_the_model_than_the_logit_lens_and_the_steps_help() -> None:
    model = knowing(MAKERS["llama"]())
    tuned, alone = fitted(model), fitted(model, steps=0)
    assert tuned.better and tuned.mean_kl < alone.mean_kl < 0.7 * alone.mean_logit_kl
    assert tuned.logit_kl == alone.logit_kl
    assert tuned.kl[-1] == tuned.logit_kl[-1] == 0.0
    assert tuned.weights.dtype == torch.float16
    assert tuned.tokens + tuned.held_out == sum(g.counted for part in split(given(model)) for g in part)


def given(model: LoadedModel) -> list[TextGroup]:
    return [TextGroup(tuple(tuple(model.tokenizer(text)["input_ids"]) for text in [*TEXTS, *MORE]), 1)]


def test_held_out_texts_are_not_fitted_on() -> None:
    model = knowing(MAKERS["llama"]())
    fit, held = split([*given(model), TextGroup(((1, 2, 3), (1, 4, 5)), 1)])
    seen = {text for group in fit for text in group.texts}
    aside = {text for group in held for text in group.texts}
    assert aside and not seen & aside
    assert {(1, 2, 3), (1, 4, 5)} <= seen | aside and (1, 4, 5) in aside
    assert work_of(model, given(model)) == sum(len(batches_of(model, part)) for part in split(given(model))) + 3


def test_a_text_of_several_groups_is_held_out_of_all_or_none() -> None:
    a, b, c = (1, 2, 3), (1, 4, 5), (1, 6, 7)
    fit, held = split([TextGroup((a, b), 1), TextGroup((b, a), 0)])
    assert (fit, held) == ([TextGroup((a,), 1), TextGroup((a,), 0)], [TextGroup((b,), 1)])
    fit, held = split([TextGroup((a,), 1), TextGroup((a, b), 1), TextGroup((b,), 1)])
    assert (fit, held) == ([TextGroup((a,), 1), TextGroup((a,), 1)], [TextGroup((b,), 1)])
    fit, held = split([TextGroup((a,), 1), TextGroup((b, b, c), 0)])
    assert (fit, held) == ([TextGroup((a,), 1), TextGroup((b, b), 0)], [TextGroup((c,), 0)])


def test_one_distinct_text_is_refused_however_often_it_is_given() -> None:
    """It would be fitted on and judged on at once."""
    model = knowing(MAKERS["llama"]())
    for texts in (TEXTS[:1], TEXTS[:1] * 40, [TextGroup(((1, 2, 3),) * 90, 1), TextGroup(((1, 2, 3),) * 9, 0)]):
        with pytest.raises(ValueError, match=r"texts has 1 distinct text\. Give at least two"):
            wb.tuned_lens(model, texts=texts, progress=False)
    with pytest.raises(ValueError, match="texts has no distinct text"):
        wb.tuned_lens(model, texts=[], progress=False)
    two = wb.tuned_lens(model, texts=[*TEXTS[:1] * 40, TEXTS[4]], progress=False)
    assert (two.tokens, two.held_out) == (40 * 6, 6)


def test_what_is_held_out_does_not_make_up_for_too_few_tokens() -> None:
    """42 unknowns a direction: 48 tokens in all, of which 42 are fitted on, are enough, and 36 of them are not."""
    model = knowing(MAKERS["llama"]())
    assert wb.tuned_lens(model, texts=TEXTS[:8], progress=False).tokens == 42
    with pytest.raises(ValueError, match="fitted on have 36 tokens, without those that are held out, and the model is"):
        wb.tuned_lens(model, texts=TEXTS[:7], progress=False)


def test_a_stored_lens_of_another_shape_is_fitted_again(tmp_path: Path) -> None:
    first = fitted(knowing(MAKERS["llama"]()))
    (path,) = (tmp_path / "cache" / "lenses").rglob("*.safetensors")
    saved = safetensors.torch.load(path.read_bytes())
    for name in ("weights", "biases", "kl", "logit_kl"):
        wrong = saved[name][..., :-1].contiguous()
        path.write_bytes(safetensors.torch.save({**saved, name: wrong}))
        again = fitted(knowing(MAKERS["llama"]()))
        assert torch.equal(again.weights, first.weights) and again.kl == first.kl, name


def test_the_judgement_is_a_plain_divergence() -> None:
    """Held-out divergences equal those of states that are read by hand."""
    model = knowing(MAKERS["llama"]())
    tuned = fitted(model)
    fit = LensFit(model, Resumable(model), None)
    torch.manual_seed(0)
    states = torch.randn(4, 9, model.shape.d_model)
    kl, logit_kl = fit._judged(states, tuned.weights, tuned.biases)
    norm, head = model.hf.model.norm, model.hf.lm_head
    with torch.no_grad():
        read = [head(norm(s)).log_softmax(-1) for s in tuned.translated(states)]
        plain = [head(norm(s)).log_softmax(-1) for s in states]
        for row in range(3):
            for found, q in ((kl[row], read[row]), (logit_kl[row], plain[row])):
                by_hand = torch.nn.functional.kl_div(q, plain[-1], log_target=True, reduction="batchmean")
                assert found == pytest.approx(float(by_hand), rel=1e-4)
    assert divergence(plain[0], plain[0]).abs().max() == 0


@FAMILIES
def test_a_lens_through_it_ends_in_the_models_own_prediction(family: str) -> None:
    model = knowing(MAKERS[family]())
    tuned = fitted(model)
    plain, through = wb.lens(model, FACTS[0]), wb.lens(model, FACTS[0], kind=tuned)
    assert (plain.kind, through.kind) == ("logit", "tuned")
    assert "tuned" in repr(through) and "tuned" not in repr(plain)
    for name in plain.names:
        assert through.probabilities[name][-1] == pytest.approx(plain.probabilities[name][-1], abs=1e-6)
        assert through.probabilities[name][:-1] != plain.probabilities[name][:-1]


def test_rows_are_those_of_the_map_by_hand() -> None:
    model = knowing(MAKERS["llama"]())
    tuned = fitted(model)
    place = traced_prompt(model, FACTS[0])
    found, grid = wb.lens(model, FACTS[0], kind=tuned), wb.lens_grid(model, FACTS[0], kind=tuned)
    with torch.no_grad():
        hidden = model.hf(torch.tensor([place.token_ids]), output_hidden_states=True).hidden_states
        for row in range(3):
            x = hidden[row][0, -1]
            state = x + x @ tuned.weights[row].float() + tuned.biases[row]
            share = model.hf.lm_head(model.hf.model.norm(state)).softmax(-1)
            assert found.probabilities["old"][row] == pytest.approx(float(share[place.answer_id]), rel=1e-3, abs=1e-7)
    assert grid.kind == "tuned"
    torch.testing.assert_close(
        grid.probabilities[:, -1], torch.tensor(found.probabilities["old"]), atol=1e-5, rtol=1e-3
    )


def test_an_edited_model_is_read_through_its_bases_lens() -> None:
    model = knowing(MAKERS["llama"]())
    edit = edit_of(model, some_gates(model, (0, "z"), (1, "post")))
    tuned = fitted(model)
    with wb.applied(model, edit) as edited:
        assert fitted(edited) is tuned
        assert wb.lens(edited, edit.facts[0], kind=tuned).kind == "tuned"


def test_it_is_remembered_in_the_model_and_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    model = knowing(MAKERS["llama"]())
    first = wb.tuned_lens(model, pool=FACTS, max_tokens=400, progress=False)
    assert wb.tuned_lens(model, pool=FACTS, max_tokens=400, progress=False) is first

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("fitted again")

    monkeypatch.setattr(LensFit, "fitted", never)
    again = wb.tuned_lens(knowing(MAKERS["llama"]()), pool=FACTS, max_tokens=400, progress=False)
    assert torch.equal(again.weights, first.weights) and torch.equal(again.biases, first.biases)
    for name in ("kl", "logit_kl", "tokens", "held_out", "fingerprint", "texts"):
        assert getattr(again, name) == getattr(first, name), name
    with pytest.raises(AssertionError, match="fitted again"):
        wb.tuned_lens(model, pool=FACTS, max_tokens=399, progress=False)


def test_the_default_lens_is_fitted_once_for_all_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    model = knowing(MAKERS["llama"]())
    monkeypatch.setattr("workbench.tracing.tuned_lens.default_texts", lambda *_, **__: given(model))
    first = lens_of(model, "tuned")
    monkeypatch.setattr("workbench.tracing.tuned_lens.default_texts", None)
    assert lens_of(model, "tuned") is first
    assert lens_of(model, "logit") is None
    assert [one.kind for one in wb.lens(model, [FACTS[0], FACTS[1]], kind="tuned")] == ["tuned", "tuned"]


def test_a_damaged_file_is_fitted_again(tmp_path: Path) -> None:
    first = fitted(knowing(MAKERS["llama"]()))
    (path,) = (tmp_path / "cache" / "lenses").rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(fitted(knowing(MAKERS["llama"]())).weights, first.weights)


def test_cancelled_nothing_is_kept(tmp_path: Path) -> None:
    model = knowing(MAKERS["llama"]())
    flag = threading.Event()
    flag.set()
    with pytest.raises(Cancelled, match="while its lens was fitted"):
        fitted(model, cancel=flag)
    assert len(model.cache.lenses) == 0 and not (tmp_path / "cache" / "lenses").exists()


def test_bad_input_is_refused() -> None:
    model = knowing(MAKERS["llama"]())
    with pytest.raises(ValueError, match="42 wide"):
        wb.tuned_lens(model, texts=TEXTS[:2], progress=False)
    with pytest.raises(ValueError, match=r"steps must be a whole number of at least 0, got -1"):
        fitted(model, steps=-1)
    with pytest.raises(ValueError, match=r"kind must be one of \('logit', 'tuned'\) or a TunedLens, got 'jacobian'"):
        wb.lens(model, FACTS[0], kind=mistyped("jacobian"))
    other = replace(fitted(model), fingerprint="0" * 64)
    with pytest.raises(ValueError, match="fitted on another model"):
        wb.lens(model, FACTS[0], kind=other)
    with pytest.raises(ValueError, match="3 layers and width 42, and the states are of 2 layers"):
        fitted(model).translated(torch.zeros(3, 42))


def test_the_page_has_the_numbers_on_file() -> None:
    """Every layer's row, and what is said of all of them: the tuned lens is closer, beyond both intervals."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "results" / "lenses.md").read_text(encoding="utf-8")
    found = json.loads((root / "benchmarks" / "results" / "lenses.json").read_text(encoding="utf-8"))
    sets = [found["sets"][name] for name in ("prose", "questions")]
    for row, label in enumerate(row_labels(30)[:-1]):
        cells = [one["lenses"][kind]["kl"][row] for one in sets for kind in ("logit", "tuned")]
        shown = [f"{c['value']:.2f} [{c['low']:.2f}, {c['high']:.2f}]" for c in cells]
        assert f"| {label} | {' | '.join(shown)} |" in page, label
        for logit, tuned in (cells[:2], cells[2:]):
            assert tuned["high"] < logit["low"] and tuned["value"] < 0.34 * logit["value"]
        for one in sets:
            assert one["lenses"]["tuned"]["same"][row] > one["lenses"]["logit"]["same"][row]
    for one, words in zip(sets, ("591\ntokens of the 10 passages", "240 tokens of 12 control facts"), strict=True):
        assert words in page and words.startswith(str(one["tokens"])) and f" {one['texts']} " in words
        for kind in ("logit", "tuned"):
            values = [cell["value"] for cell in one["lenses"][kind]["kl"][:-1]]
            assert f"{sum(values) / len(values):.2f}" in page
    assert f"{found['fitted_on']['tuned']['tokens']:,} tokens" in unwrapped(page)
