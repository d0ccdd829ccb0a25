"""What the maps of a CircuitPicker show, in words: their measure, where the values come from, what a click selects."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

from workbench.plots.style import short_number, visible
from workbench.tracing.summary import where_read
from workbench.types import EffectMap
from workbench.types.effect import CONTRASTED
from workbench.widgets.picker.maps import TITLES, MapName, Sources, left_out, row_components
from workbench.widgets.shared import markup
from workbench.widgets.shared.contrast_words import contrast_answers
from workbench.widgets.shared.measure import MEASURES, Measure, MeasureName
from workbench.widgets.shared.partner_words import everywhere, partner_subject

CELLS: dict[str, str] = {
    "resid": "how much of the answer comes back when the corrupted run gets the clean residual stream entering this "
    "layer at this token. It has no gates of its own: a click selects the layer's attention and MLP, which read it",
    "mlp": "the same with this layer's MLP output. A click selects the MLP, at all tokens",
    "attn": "the same with this layer's attention output. A click selects the attention (q, k, v and o), at all tokens",
    "heads": "a query head's effect, summed over tokens. A click selects it, also at all tokens",
    "mlps": "an MLP's effect, summed over tokens. A click selects it",
    "neurons": "a neuron's attribution{contrast}, summed over tokens. A click selects it",
    "attentions": "an attention layer's effect, summed over tokens. A click selects it (q, k, v and o)",
}


def measure_of(effect: EffectMap, measure: Measure) -> Measure:
    """The measure that a map was made with; what the map does not say is taken from ``measure``."""
    name = "recovery" if effect.normalised else effect.metric
    known = cast(MeasureName, name) if name in MEASURES else measure.name
    return Measure(known, effect.corruption or measure.corruption)


def heading(sources: Sources) -> tuple[str, str]:
    """What the maps are about, and the answers; of several how many."""
    many = len(sources.traced)
    if sources.contrasts:
        first = sources.contrasts[0]
        note = f"means over {many} contrasts" if many > 1 else contrast_answers(first)
        asked = [f"{one.clean} …" if isinstance(one.clean, str) else one.id for one in sources.contrasts[:3]]
    else:
        raw, facts = sources.form == "cloze", sources.facts
        asked = [f"{one.prompt} …" if raw else one.question for one in facts[:3]]
        note = f"{facts[0].answer} → {facts[0].target}" if many == 1 else f"means over {many} facts"
    return "; ".join(asked) + (f" and {many - 3} more" if many > 3 else ""), note


def headline(sources: Sources, maps: Mapping[str, EffectMap]) -> str:
    """The one measure of all maps: metric, tokens, corruption. Plain text."""
    measure = sources.measure
    effect = next((maps[name] for name in TITLES if name in maps), None)
    prompt = effect.prompts[0] if effect is not None and len(effect.prompts) == 1 else None
    of = MEASURES[measure.name]
    if prompt is not None:
        of += f" of {visible(prompt.answer_token)}"
        if measure.metric == "logit_diff" and prompt.other_token is not None:
            of += f" over {visible(prompt.other_token)}"
    scale = {"recovery": ": 0 corrupted, 1 clean", "logit_diff": ", in logits", "probability": ""}[measure.name]
    how = "noise on the subject" if sources.corruption == "noise" else "swap"
    if sources.contrasts:
        how = "noise on the clean prompt" if sources.corruption == "noise" else "against the corrupted prompt"
    elif sources.corruption == "swap" and sources.partner is not None:
        how = f"swap with {sources.partner.subject}"
    how += everywhere(prompt) if prompt is not None and not sources.contrasts else ""
    means = f"; means over {len(sources.traced)} {sources.variable}s" if len(sources.traced) > 1 else ""
    return f"{of}{scale}; {how}{means}"


def measure_line(sources: Sources, maps: Mapping[str, EffectMap]) -> str:
    """The same as markup, the largest line above the maps, and below it the sentence."""
    words, read = markup.text(headline(sources, maps)), markup.text(sentence(maps))
    below = f'<p class="wb-sentence">{read}</p>'
    return markup.block(f'<div class="wb-measure" role="heading" aria-level="4"><bdi>{words}</bdi></div>{below}')


def sentence(maps: Mapping[str, EffectMap]) -> str:
    """Where the answer is read, written from the maps with its control; empty without a residual trace of one fact."""
    trace = maps.get("resid")
    if trace is None or len(trace.prompts) != 1 or trace.corrupted is None:
        return ""
    alike = {
        name: effect
        for name in ("heads", "mlps")
        if (effect := maps.get(name)) is not None
        and (effect.metric, effect.corruption) == (trace.metric, trace.corruption)
        and effect.corrupted is not None
    }
    return where_read(trace, alike.get("heads"), alike.get("mlps")).words


def notes(sources: Sources, maps: Mapping[str, EffectMap]) -> str:
    """Where the values of the maps come from, as a table in a collapsible area, with one line above it."""
    if not maps:
        return ""
    corrupted_by = partial(_corrupted_by, sources)
    rows = [
        (
            TITLES[name],
            cell(name, effect),
            effect.method,
            measured(effect),
            corrupted_by(effect),
            short_number(effect.clean),
            short_number(effect.corrupted),
            form(effect),
        )
        for name in TITLES
        if (effect := maps.get(name)) is not None
    ]
    head = ("map", "a cell is", "method", "unit", "corrupted by", "clean", "corrupted", "form")
    table = markup.table(head, rows, "What the maps show")
    first = next(name for name in ("resid", "mlp", "attn", *TITLES) if name in maps)
    usual = measured(maps[first]), corrupted_by(maps[first])
    others = [
        f" {TITLES[name]}: {measured(effect)}, corrupted by {corrupted_by(effect)}."
        for name in TITLES
        if (effect := maps.get(name)) is not None and (measured(effect), corrupted_by(effect)) != usual
    ]
    line = f'<p class="wb-muted">{markup.text(in_a_line(maps[first]) + "".join(others))}</p>'
    known = dict.fromkeys(note for effect in maps.values() for note in effect.notes)
    warned = "".join(markup.alert(note, "info") for note in known)
    return warned + markup.block(line) + markup.fold("What the maps show", table)


def in_a_line(effect: EffectMap) -> str:
    """Baselines, form and what is left out of a map."""
    unit, of_contrasts = effect.metric_words.unit, any(prompt.roles for prompt in effect.prompts)
    words = [f"{effect.metric_words.title.capitalize()}: clean {short_number(effect.clean)}"]
    words.append(f"corrupted {short_number(effect.corrupted)}" + f" {unit}" * (unit != effect.metric_words.title))
    words.append(f"{form(effect)} form")
    if len(effect.prompts) > 1:
        words.append(f"means over {effect.n} {'contrasts' if of_contrasts else 'facts'}")
    if n := left_out(effect):
        first = "change" if of_contrasts else "subject"
        words.append(f"{n} tokens before the {first} are left out (no effect there)")
    return ", ".join(words) + "."


def _corrupted_by(sources: Sources, effect: EffectMap) -> str:
    """The corruption, and whose subject is swapped in."""
    if sources.contrasts:
        return "noise" if effect.corruption == "noise" else "the corrupted prompt"
    swaps = [prompt for prompt in effect.prompts if prompt.partner is not None]
    partners = list(dict.fromkeys(partner_subject(prompt, sources.partner, sources.pool) for prompt in swaps))
    if len(partners) == 1:
        return f"a swap with {partners[0]}"
    return "swaps" if partners else effect.corruption or "something unknown"


def cell(name: MapName, effect: EffectMap) -> str:
    """What a cell of a map is, and what a click on it selects."""
    contrast = " minus its mean over control facts" if effect.method.endswith(CONTRASTED) else ""
    return CELLS[name].format(contrast=contrast)


def measured(effect: EffectMap) -> str:
    """The metric and its tokens."""
    words = effect.metric_words
    share = "recovery of the " if effect.normalised else ""
    if not words.comparison or len(effect.prompts) != 1 or effect.prompts[0].other_token is None:
        return f"{share}{words.title}"
    prompt = effect.prompts[0]
    answer, other = repr(visible(prompt.answer_token)), repr(visible(prompt.other_token or ""))
    return share + words.comparison.format(answer=answer, other=other)


def form(effect: EffectMap) -> str:
    """``chat``, ``cloze``, or both."""
    return " and ".join(sorted({prompt.form for prompt in effect.prompts})) or "unknown"


def tip(effect: EffectMap, *cell: int) -> str:
    """Below the value of a cell: its standard error, where there is one."""
    if effect.stderr is None:
        return ""
    return f"± {short_number(float(effect.stderr[cell[: effect.values.ndim]]))} (standard error)"


def picks(name: MapName, layer: int) -> str:
    """What a click on a cell of a layer selects, where that is not the cell itself."""
    if name == "heads":
        return ""
    where = ", all tokens" if name in ("resid", "mlp", "attn") else ""
    return " ".join(map(str, row_components(name, layer))) + where
