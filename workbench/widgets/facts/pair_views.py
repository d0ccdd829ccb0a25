"""What a pair of prompts shows, as markup: both token by token, the metric, and what comes next in each."""

from __future__ import annotations

from workbench.plots.style import short_number, visible
from workbench.widgets.facts.pair_reading import Aligned, PairReading
from workbench.widgets.facts.views import shares
from workbench.widgets.shared import charts, markup

READING = markup.hint("Reading both prompts ...")
EMPTY = markup.hint("Write two prompts that differ in what you ask about: they are shown here token by token.")


def strip(shown: Aligned, answers: tuple[str, str] | None = None) -> str:
    """Both prompts token by token, one above the other, what differs and the answer's place marked.

    Args:
        shown: The prompts.
        answers: The answer and the wrong answer, in the place after the last token.
    """
    items = [_cell(i, pair, same) for i, (pair, same) in enumerate(zip(shown.pairs, shown.same, strict=True))]
    for where in (range(shown.own.start), range(shown.own.stop, len(items))):
        if len(where):
            label = f"template ({len(where)})"
            items[where.start : where.stop] = [
                f'<li class="wb-chip" title="{len(where)} tokens of the chat template">{label}</li>',
                *[""] * (len(where) - 1),
            ]
    if answers is not None:
        right, wrong = (f"<bdi>{markup.text(visible(answer))}</bdi>" for answer in answers)
        items.append(
            f'<li class="wb-traced" title="the answer, and below it the wrong answer: measured after the last token">'
            f"{right}{wrong}</li>"
        )
    clean, corrupted = shown.counts
    key = '<span class="wb-key">Above: clean. Below: corrupted.</span>'
    key += '<span class="wb-key">Bold, underlined: what differs.</span>' * (not all(shown.same))
    key += '<span class="wb-key">Dashed frame: the answer, and below it the wrong one.</span>' * (answers is not None)
    label = f"The two prompts, token by token: {clean} and {corrupted} tokens"
    return markup.block(
        f'<ul class="wb-tokens wb-pairs" aria-label="{label}">{"".join(items)}</ul><p class="wb-muted">{key}</p>',
        _lengths(shown),
    )


def _cell(i: int, pair: tuple[str | None, str | None], same: bool) -> str:
    said = f"token {i}" + ("" if same else ", differs")
    mark = "" if same else ' class="wb-subject"'
    lines = "".join("<bdi>–</bdi>" if one is None else f"<bdi>{markup.text(visible(one))}</bdi>" for one in pair)
    return f'<li{mark} title="{said}">{lines}</li>'


def _lengths(shown: Aligned) -> str:
    clean, corrupted = shown.counts
    if shown.fits:
        return ""
    words = (
        f"{clean} and {corrupted} tokens: they are paired by position, so both need as many. Word one of them longer "
        "or shorter where they differ."
    )
    return f'<p class="wb-problem" role="status">{words}</p>'


def answers_of(reading: PairReading) -> tuple[str, str]:
    """The answer's tokens and the wrong one's."""
    return reading.prompt.answer_token, reading.prompt.other_token or ""


def heading(reading: PairReading) -> str:
    """The answers, and how far the metric tells the two prompts apart."""
    right, wrong = (markup.token(one).html for one in answers_of(reading))
    clean, corrupted = short_number(reading.clean), short_number(reading.corrupted)
    numbers = f"{clean} after the clean prompt, {corrupted} after the corrupted one"
    return markup.block(
        f'<div class="wb-title" role="heading" aria-level="3">{right} over {wrong}</div>'
        f'<p role="status">{markup.text(reading.metric.capitalize())}: {markup.text(numbers)}.</p>'
    ) + markup.alert(reading.warning, "info")


def following(reading: PairReading) -> str:
    """The likeliest next tokens of both as bars."""
    return "".join(
        charts.bars(shares(tokens), f"Next token after the {name} prompt: probability")
        for name, tokens in (("clean", reading.after_clean), ("corrupted", reading.after_corrupted))
    )
