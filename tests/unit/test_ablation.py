"""Zero, mean and swapped ablations of every kind of component against plain hooks on the plain model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.plain_hooks import FACTS, FRANCE, SPAIN, single
from tests.helpers.tiny_facts import FAMILIES, by_hand, capital, edit_of, some_gates
from tests.helpers.traces import hooked
from workbench.editing.applied import Dial
from workbench.language.prompts import prompt_ids, traced_prompt
from workbench.models.load import LoadedModel
from workbench.tracing.ablation import ablate
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import causal_trace
from workbench.tracing.replacements import reference_texts
from workbench.types import Ablation, FactSet, NextToken, Selection

OTHERS = FactSet([FACTS[i] for i in range(1, 5)])
MIXTURES = (
    "L1H2",
    "L0MLP",
    "L2N5 L2N7",
    "L1ATTN",
    "L1K1",
    "L0V1",
    "L2KV0",
    "L1H2 L1H3 L0MLP L2N5 L0KV1 L2ATTN",
    "L1ATTN L1H2 L1KV1 L0MLP L0N3",
)
SELECTIONS = pytest.mark.parametrize("text", MIXTURES)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


# The slow reference: module names and spans written out for each family


@lru_cache
def spots(family: str, text: str) -> dict[tuple[str, bool], set[int] | None]:
    """Module (within the model), whether its input is meant, and which entries of it (None: all)."""
    shape = single(family).shape
    width, groups = shape.d_head, shape.n_kv_heads
    stem, attention = ("transformer.h", "attn") if family == "gpt2" else ("model.layers", "self_attn")
    found: dict[tuple[str, bool], set[int] | None] = {}

    def add(layer: int, module: str, on_input: bool, entries: range | None) -> None:
        place = f"{stem}.{layer}.{module}", on_input
        if entries is None:
            found[place] = None
        else:
            kept = found.setdefault(place, set())
            assert kept is not None
            kept |= set(entries)

    for c in Selection(text):
        i = c.index or 0
        at = range(i * width, (i + 1) * width)
        if c.kind == "H":
            add(c.layer, "attn.c_proj" if family == "gpt2" else "self_attn.o_proj", True, at)
        elif c.kind == "N":
            add(c.layer, "mlp.c_proj" if family == "gpt2" else "mlp.down_proj", True, range(i, i + 1))
        elif c.kind == "MLP":
            add(c.layer, "mlp", False, None)
        elif c.kind == "ATTN":
            add(c.layer, attention, False, None)
        for letter, past in (("K", 0), ("V", groups * width)):
            if c.kind not in (letter, "KV"):
                continue
            if family == "llama":
                add(c.layer, f"self_attn.{letter.lower()}_proj", False, at)
            else:  # q, k and v lie behind each other in one projection
                first = shape.n_heads * width + past
                fused = "attn.c_attn" if family == "gpt2" else "self_attn.qkv_proj"
                add(c.layer, fused, False, range(first + at.start, first + at.stop))
    return found


def states(model: LoadedModel, family: str, text: str, ids: Any) -> dict[tuple[str, bool], Tensor]:
    kept: dict[tuple[str, bool], Tensor] = {}

    def keep(place: tuple[str, bool]) -> Callable[[Tensor], Tensor]:
        def change(value: Tensor) -> Tensor:
            kept[place] = value.clone()
            return value

        return change

    run(model, ids, {place: keep(place) for place in spots(family, text)})
    return kept


def run(model: LoadedModel, ids: Any, changes: Mapping[tuple[str, bool], Callable[[Tensor], Tensor]]) -> Tensor:
    with torch.no_grad(), hooked(model.hf, {name: (on_input, c) for (name, on_input), c in changes.items()}):
        return model.hf(torch.tensor([list(ids)])).logits[0, -1].float()


def replaced(model: LoadedModel, family: str, text: str, ids: Any, new: Mapping[Any, Tensor] | None) -> Tensor:
    """Last logits with the outputs of a selection replaced; by zero without ``new``."""

    def change(place: tuple[str, bool], entries: set[int] | None) -> Callable[[Tensor], Tensor]:
        def put(value: Tensor) -> Tensor:
            value = value.clone()
            source = torch.zeros_like(value) if new is None else new[place].expand_as(value)
            for entry in range(value.shape[-1]) if entries is None else sorted(entries):
                value[..., entry] = source[..., entry]
            return value

        return put

    return run(model, ids, {place: change(place, entries) for place, entries in spots(family, text).items()})


def mean_states(model: LoadedModel, family: str, text: str, texts: list[list[int]]) -> dict[Any, Tensor]:
    """Over all positions but the first of each text."""
    per_text = [states(model, family, text, ids) for ids in texts]
    return {place: torch.cat([s[place][0, 1:] for s in per_text]).double().mean(0).float() for place in per_text[0]}


def agrees(found: Ablation, logits: Tensor, clean: Tensor, other: int) -> None:
    prompt = found.prompt
    assert prompt.other_id == other
    assert found.clean == pytest.approx(float(clean[prompt.answer_id] - clean[other]), abs=2e-4)
    assert found.ablated == pytest.approx(float(logits[prompt.answer_id] - logits[other]), abs=2e-4)
    assert found.effect == pytest.approx(found.clean - found.ablated)
    for tokens, of in ((found.clean_next, clean), (found.ablated_next, logits)):
        shares = of.softmax(-1).topk(5)
        assert [t.probability for t in tokens] == pytest.approx(shares.values.tolist(), abs=1e-4)
        assert [float(of.softmax(-1)[t.id]) for t in tokens] == pytest.approx(shares.values.tolist(), abs=1e-4)


@FAMILIES
@SELECTIONS
@pytest.mark.parametrize("form", ["cloze", "chat"])
def test_zero_equals_plain_hooks(family: str, text: str, form: Any) -> None:
    model = single(family)
    found = ablate(model, FRANCE, text, form=form)
    prompt = traced_prompt(model, FRANCE, form=form)
    clean = run(model, prompt.token_ids, {})
    assert prompt.other_id is not None
    agrees(found, replaced(model, family, text, prompt.token_ids, None), clean, prompt.other_id)
    assert abs(found.effect) > 1e-3 or text in ("L1K1",), "the ablation does something"
    assert (found.ablation, found.form, found.references, found.corrupted, found.left) == ("zero", form, 0, None, None)


@FAMILIES
@SELECTIONS
@pytest.mark.parametrize("form", ["cloze", "chat"])
def test_mean_equals_plain_hooks(family: str, text: str, form: Any) -> None:
    model = single(family)
    found = ablate(model, FRANCE, text, ablation="mean", form=form, pool=FACTS, references=3)
    prompt = traced_prompt(model, FRANCE, form=form)
    texts = [prompt_ids(model, f.question if form == "chat" else f.prompt, form) for f in (OTHERS[0], *OTHERS[1:3])]
    assert found.references == 3
    expected = replaced(model, family, text, prompt.token_ids, mean_states(model, family, text, texts))
    assert prompt.other_id is not None
    agrees(found, expected, run(model, prompt.token_ids, {}), prompt.other_id)


@FAMILIES
@SELECTIONS
@pytest.mark.parametrize("form", ["cloze", "chat"])
def test_swap_equals_plain_hooks(family: str, text: str, form: Any) -> None:
    model = single(family)
    found = ablate(model, FRANCE, text, ablation="swap", partner=SPAIN, form=form)
    prompt, spain = (traced_prompt(model, f, form=form) for f in (FRANCE, SPAIN))
    new = states(model, family, text, spain.token_ids)
    expected = replaced(model, family, text, prompt.token_ids, new)
    agrees(found, expected, run(model, prompt.token_ids, {}), spain.answer_id)
    assert found.prompt.partner == "spain-capital" and found.prompt.partner_text == spain.text
    corrupted = run(model, spain.token_ids, {})
    assert found.corrupted == pytest.approx(float(corrupted[prompt.answer_id] - corrupted[spain.answer_id]), abs=2e-4)
    assert found.corrupted is not None
    assert found.left == pytest.approx((found.ablated - found.corrupted) / (found.clean - found.corrupted))


def test_swap_mirrors_exact_patching_by_hand() -> None:
    """Head L1H0 tells France from Spain: swapping it alone turns the answer round."""
    found = ablate(by_hand(), FRANCE, "L1H0", ablation="swap", partner=SPAIN, form="cloze")
    assert (found.clean, found.ablated, found.corrupted) == pytest.approx((8, -8, -8), abs=1e-4)
    assert found.left == pytest.approx(0, abs=1e-5) and found.effect == pytest.approx(16, abs=1e-4)
    assert [t.token for t in (found.clean_next[0], found.ablated_next[0])] == [" Paris", " Madrid"]
    other = ablate(by_hand(), FRANCE, "L1H1 L2MLP L0ATTN", ablation="swap", partner=SPAIN, form="cloze")
    assert other.left == pytest.approx(1, abs=1e-5)
    values = ablate(by_hand(), FRANCE, "L1V0", ablation="swap", partner=SPAIN, form="cloze")
    keys = ablate(by_hand(), FRANCE, "L1K0", ablation="swap", partner=SPAIN, form="cloze")
    assert values.left == pytest.approx(0, abs=1e-5) and keys.left == pytest.approx(1, abs=1e-5), (
        "all attention is even"
    )


def test_means_by_hand() -> None:
    """The head writes 5/2 of the average of the values, which are 2 at France and -2 at Spain. So in the one reference
    text, of Spain, it writes -5 times 0, 0, 1/4 and 1/5 over the positions after the first; the mean stands in."""
    pool = FactSet([FRANCE, SPAIN])
    found = ablate(by_hand(), FRANCE, "L1H0", ablation="mean", pool=pool, form="cloze", metric="logit_diff")
    written = -(5 / 2) * 2 * (0 + 0 + 1 / 4 + 1 / 5) / 4
    scale = ((1 + written**2) / 8) ** 0.5
    rome = 0.0  # the target's logit
    assert found.ablated == pytest.approx(2 * written / scale - rome, abs=1e-4) and found.references == 1
    assert found.clean == pytest.approx(4, abs=1e-4)


def test_against_partner_and_target() -> None:
    """What the answer is compared with is said apart from what stands in."""
    model = single()
    spain = traced_prompt(model, SPAIN, form="cloze").answer_id
    prompt = traced_prompt(model, FRANCE, form="cloze")
    options: dict[str, Any] = {"form": "cloze", "pool": FACTS}
    zero = ablate(model, FRANCE, "L0MLP", partner=SPAIN, **options)
    assert zero.prompt.other_id == spain and zero.corrupted is not None and zero.left is not None
    asked = ablate(model, FRANCE, "L0MLP", against="partner", **options)
    assert asked.prompt.partner is not None and asked.prompt.other_id != prompt.other_id
    target = ablate(model, FRANCE, "L0MLP", ablation="swap", partner=SPAIN, against="target", **options)
    assert target.prompt.other_id == prompt.other_id and target.prompt.partner == "spain-capital"
    clean = causal_trace(
        model, FRANCE, corruption="swap", partner=SPAIN, metric="logit_diff", progress=False, **options
    )
    assert (zero.clean, zero.corrupted) == pytest.approx((clean.clean, clean.corrupted), abs=2e-4)
    share = ablate(model, FRANCE, "L0MLP", metric="probability", **options)
    assert share.clean == pytest.approx(zero.clean_next[0].probability, abs=1e-5)


def test_controls_are_drawn_like_the_selection_and_measured_alike() -> None:
    model, text = single(), "L1H2 L0MLP L2N5 L2N7 L0KV1"
    found = ablate(model, FRANCE, text, control=3, seed=4, form="cloze")
    assert len(found.controls) == 3 and found.control_effect is not None
    for i, one in enumerate(found.controls):
        assert one.selection == Selection(text).random_like(model, seed=4 + i)
        alone = ablate(model, FRANCE, one.selection, form="cloze")
        assert one.ablated == pytest.approx(alone.ablated, abs=1e-4) and one.clean == found.clean
        assert [t.id for t in one.ablated_next] == [t.id for t in alone.ablated_next] and one.controls == ()
    effects = [one.effect for one in found.controls]
    assert found.control_effect == pytest.approx(sum(effects) / 3)
    again = ablate(model, FRANCE, text, control=3, seed=4, form="cloze")
    assert [c.selection for c in again.controls] == [c.selection for c in found.controls]
    for kind in ("mean", "swap"):
        other = ablate(model, FRANCE, "L1H2", ablation=kind, control=2, form="cloze", pool=FACTS)
        for one in other.controls:
            alone = ablate(model, FRANCE, one.selection, ablation=kind, form="cloze", pool=FACTS)
            assert one.ablated == pytest.approx(alone.ablated, abs=1e-4)
    with pytest.raises(ValueError, match="Cannot draw 2 other components"):
        ablate(model, FRANCE, "L0MLP L1MLP", control=1)


@FAMILIES
@pytest.mark.parametrize("kind", ["zero", "mean", "swap"])
def test_the_continuation_is_ablated_at_every_step(family: str, kind: Any) -> None:
    model, text = single(family), "L1H2 L0KV1 L2MLP"
    options: dict[str, Any] = {"form": "cloze", "pool": FACTS, "partner": SPAIN, "references": 2}
    found = ablate(model, FRANCE, text, ablation=kind, new_tokens=4, **options)
    ids, spain = (list(traced_prompt(model, f, form="cloze").token_ids) for f in (FRANCE, SPAIN))
    texts = [list(ids) for ids in reference_texts(model, FRANCE, "cloze", FACTS, 2)]
    fixed = mean_states(model, family, text, texts) if kind == "mean" else None

    def goes_on(ablated: bool) -> str:
        added: list[int] = []
        for _ in range(4):
            new = states(model, family, text, [*spain, *added]) if kind == "swap" else fixed
            whole = [*ids, *added]
            logits = replaced(model, family, text, whole, new) if ablated else run(model, whole, {})
            token = int(logits.argmax())
            if token == model.tokenizer.eos_token_id:
                break
            added.append(token)
        return model.tokenizer.decode(added, skip_special_tokens=True)

    assert found.ablated_text == goes_on(True) and found.clean_text == goes_on(False) == " Paris"
    assert ablate(model, FRANCE, text, ablation=kind, **options).clean_text is None


def test_an_edited_model_is_ablated_as_it_is() -> None:
    """Before its gates: a head with a closed gate writes nothing either way."""
    base = single()
    gates = some_gates(base, (1, "z"))
    gates[1, "z"][:8] = 0
    model = Dial(base, edit_of(base, gates)).at(1.0)
    for kind in ("zero", "mean", "swap"):
        closed = ablate(model, FRANCE, "L1H0", ablation=kind, form="cloze", pool=FACTS)
        assert closed.effect == pytest.approx(0, abs=1e-4)
        assert abs(ablate(base, FRANCE, "L1H0", ablation=kind, form="cloze", pool=FACTS).effect) > 1e-2
    assert closed.clean != pytest.approx(ablate(base, FRANCE, "L1H0", form="cloze", pool=FACTS).clean, abs=1e-3)


def test_means_are_computed_once() -> None:
    model = single()
    model.cache.clear()
    first = ablate(model, FRANCE, "L1H2 L2MLP", ablation="mean", form="cloze", pool=FACTS)
    assert len(model.cache.means) == 2 and first.references == 4, "one a site"
    second = ablate(model, FRANCE, "L0H2 L0KV1", ablation="mean", form="cloze", pool=FACTS)
    assert len(model.cache.means) == 4
    model.cache.clear()
    assert ablate(model, FRANCE, "L0H2 L0KV1", ablation="mean", form="cloze", pool=FACTS).ablated == second.ablated


def test_reference_texts_are_of_other_subjects_and_spread_over_the_pool() -> None:
    model = single()
    pool = FactSet(
        [
            *FACTS,
            capital("France", "Lyon", "Rome", id="again"),
        ]
    )
    asked = [tuple(prompt_ids(model, f.prompt, "cloze")) for f in FACTS[1:]]
    assert reference_texts(model, FRANCE, "cloze", pool, 16) == asked
    assert reference_texts(model, FRANCE, "cloze", pool, 2) == [asked[0], asked[2]]
    with pytest.raises(ValueError, match="no text about another subject than 'France'"):
        reference_texts(model, FRANCE, "cloze", FactSet([FRANCE]), 4)


def test_attention_layers_are_their_heads_and_key_values_reach_all_their_heads() -> None:
    """Without a bias to keep, zeroing a layer's attention is zeroing its heads; a group's values are those of its
    heads."""
    model = by_hand()
    options: dict[str, Any] = {"form": "cloze"}
    layer, heads = (ablate(model, FRANCE, text, **options).ablated for text in ("L1ATTN", "L1H0 L1H1"))
    group = ablate(model, FRANCE, "L1V0", **options).ablated
    assert layer == pytest.approx(heads, abs=1e-5) and group == pytest.approx(heads, abs=1e-5)
    full = single()
    of_group = ablate(full, FRANCE, "L1V1", **options).ablated
    assert of_group == pytest.approx(ablate(full, FRANCE, "L1H3 L1H4 L1H5", **options).ablated, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ablation": "noise"}, r"ablation must be one of \('zero', 'mean', 'swap'\), got 'noise'"),
        ({"metric": "loss"}, "metric must be one of"),
        ({"against": "answer"}, "against must be 'target', 'partner' or None, got 'answer'"),
        ({"control": -1}, r"control must be a whole number of random selections \(0 for none\), got -1"),
        ({"references": 0}, "references must be a whole number of at least 1, got 0"),
        ({"new_tokens": -1}, "new_tokens must be a whole number of at least 0, got -1"),
        ({"new_tokens": 2.0}, "new_tokens must be a whole number of at least 0, got 2.0"),
        ({"k": 0}, "k must be a whole number of at least 1, got 0"),
        ({"ablation": "swap", "pool": FactSet([FRANCE])}, "No fact of the relation"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ablate(single(), FRANCE, "L1H0", **options)


def test_the_sentence_is_written_from_the_numbers() -> None:
    prompt = traced_prompt(single(), FRANCE, form="cloze")
    paris, rome = NextToken(" Paris", 1, 0.98), NextToken(" Rome", 2, 0.325)
    given: dict[str, Any] = {"metric": "logit_diff", "clean": 14.02, "ablated": 0.7, "prompt": prompt}
    one = Ablation(selection=Selection("L1H2"), clean_next=(paris,), ablated_next=(rome,), **given)
    assert one.words == "L1H2 set to zero: logit difference 14 → 0.7; the next token is now ' Rome' (0.325)."
    assert repr(one) == f"Ablation({one.words})"
    same = Ablation(
        selection=Selection("L1H2"), clean_next=(paris,), ablated_next=(paris,), ablation="mean", references=9, **given
    )
    assert same.words.startswith("L1H2 set to the mean over 9 other texts: ") and "still ' Paris' (0.98)" in same.words
    many = Selection([f"L0N{i}" for i in range(7)])
    drawn = [Ablation(selection=many, **{**given, "ablated": value}) for value in (13.0, 12.0)]
    assert Ablation(selection=many, controls=tuple(drawn), **given).words == (
        "7 components set to zero: logit difference 14 → 0.7. "
        "2 random selections of the same size: logit difference 12.5 on average."
    )


def test_ablating_agrees_with_patching_in_sign_by_hand() -> None:
    """The two views of one head: what is lost without it, and what it brings back."""
    swap: dict[str, Any] = {"corruption": "swap", "partner": SPAIN, "form": "cloze", "pool": FACTS, "progress": False}
    patched = attribute(by_hand(), FRANCE, method="patching", **swap).values[1, 0]
    lost = ablate(by_hand(), FRANCE, "L1H0", ablation="swap", partner=SPAIN, form="cloze").effect
    assert float(patched) == pytest.approx(lost, abs=1e-3)
