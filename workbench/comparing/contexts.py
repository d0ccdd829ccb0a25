"""Edits that put a context before the text: which tokens the base reads too, for maps of one text."""

from __future__ import annotations

from workbench.language.prompt_text import context_span
from workbench.models.load import LoadedModel
from workbench.types import Contrast, Fact, TracedPrompt


def outside_context(edited: LoadedModel, one: Fact | Contrast, prompt: TracedPrompt, own: TracedPrompt) -> list[int]:
    """The positions of an edited model's text that are the base's own: all but those of the context.

    Args:
        edited: A model whose edit has a context.
        one: What is traced.
        prompt, own: The text as the edited model and as the base reads it.

    Raises:
        ValueError: The tokenizer reads the question otherwise after the context, or there is no text to put it before.
    """
    inside = context_span(edited, _asked(one, prompt), prompt.form)
    outside = [i for i in range(len(prompt.token_ids)) if i not in inside]
    if tuple(prompt.token_ids[i] for i in outside) != own.token_ids:
        raise ValueError(
            f"After its context the edited model reads {prompt.text!r} in other tokens than the base, so the maps have "
            "no cells in common. Trace each by itself: wb.causal_trace."
        )
    return outside


def _asked(one: Fact | Contrast, prompt: TracedPrompt) -> str:
    """What stands after the context.

    Raises:
        ValueError: A contrast of token ids or states, which are read without it.
    """
    if isinstance(one, Fact):
        return one.question if prompt.form == "chat" else one.prompt
    if not isinstance(one.clean, str):
        raise ValueError(
            f"This edit puts a context before texts, and contrast {one.id!r} has token ids or states, which are read "
            "as they are. Give its texts."
        )
    return one.clean
