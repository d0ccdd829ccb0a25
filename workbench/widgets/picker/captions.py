"""What the maps of a CircuitPicker show, in words: where the values come from and what a click on a cell selects."""

from __future__ import annotations

from collections.abc import Mapping

from workbench.plots.style import number, visible
from workbench.types import EffectMap
from workbench.types.effect import CONTRASTED
from workbench.widgets.picker.maps import TITLES, MapName, left_out, row_components
from workbench.widgets.shared import markup

CELLS: dict[str, str] = {
    "resid": "how much of the answer comes back when the corrupted run gets the clean residual stream entering this "
    "layer at this token. It has no gates of its own: a click selects the layer's attention and MLP, which read it",
    "mlp": "the same with this layer's MLP output. A click selects the MLP, at all tokens",
    "attn": "the same with this layer's attention output. A click selects the attention (q, k, v and o), at all tokens",
    "heads": "a query head's effect, summed over tokens. A click selects it, also at all tokens",
    "mlps": "an MLP's effect, summed over tokens. A click selects it and shows its neurons below",
    "neurons": "a neuron's attribution{contrast}, by rank within the layer",
}


def notes(maps: Mapping[str, EffectMap]) -> str:
    """Where the values of the maps come from, as a table in a collapsible area, with one line above it."""
    if not maps:
        return ""
    rows = [
        (
            TITLES[name],
            effect.method,
            measured(effect),
            corrupted_by(effect),
            number(effect.clean),
            number(effect.corrupted),
            form(effect),
            cell(name, effect),
        )
        for name in TITLES
        if (effect := maps.get(name)) is not None
    ]
    head = ("map", "method", "unit", "corrupted by", "clean", "corrupted", "form", "a cell is")
    table = markup.table(head, rows, "What the maps show")
    first = next(name for name in ("resid", "mlp", "attn", "heads", "mlps", "neurons") if name in maps)
    usual = measured(maps[first]), corrupted_by(maps[first])
    others = [
        f" {TITLES[name]}: {measured(effect)}, corrupted by {corrupted_by(effect)}."
        for name in TITLES
        if (effect := maps.get(name)) is not None and (measured(effect), corrupted_by(effect)) != usual
    ]
    return markup.block(
        f'<p class="wb-muted">{markup.text(in_a_line(maps[first]) + "".join(others))}</p>',
        f"<details><summary>What the maps show</summary>{table}</details>",
    )


def in_a_line(effect: EffectMap) -> str:
    """Unit, form, corruption and baselines of a map."""
    words = [f"Values: {measured(effect)}", f"corrupted by {corrupted_by(effect)}", f"{form(effect)} form"]
    words.append(f"clean {number(effect.clean)}, corrupted {number(effect.corrupted)}")
    if len(effect.prompts) > 1:
        words.append(f"means over {effect.n} facts")
    if n := left_out(effect):
        words.append(f"{n} tokens before the subject are left out (no effect there)")
    return ", ".join(words) + "."


def corrupted_by(effect: EffectMap) -> str:
    """The corruption, and whose subject is swapped in."""
    partners = list(dict.fromkeys(prompt.partner for prompt in effect.prompts if prompt.partner is not None))
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
    if not words.comparison or len(effect.prompts) != 1 or effect.prompts[0].other_token is None:
        return words.title
    prompt = effect.prompts[0]
    other = visible(prompt.other_token or "")
    return words.comparison.format(answer=repr(visible(prompt.answer_token)), other=repr(other))


def form(effect: EffectMap) -> str:
    """``chat``, ``cloze``, or both."""
    return " and ".join(sorted({prompt.form for prompt in effect.prompts})) or "unknown"


def tip(name: MapName, effect: EffectMap, *cell: int) -> str:
    """Below the value of a cell: its standard error, and what a click on it selects where that is not the cell."""
    index = cell[: effect.values.ndim]
    words = [f"± {number(float(effect.stderr[index]))} (standard error)"] if effect.stderr is not None else []
    if name not in ("heads", "neurons"):
        words.append(f"A click selects {' '.join(map(str, row_components(name, cell[0])))}")
    return "\n".join(words)
