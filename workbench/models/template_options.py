"""Options of a model's chat template: a system prompt, thoughts off, and whatever else the template looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.types.plain import is_mapping

THINKING = "enable_thinking"
"""The option by which most templates turn thoughts on and off; off unless ``load_model`` is told otherwise."""
SYSTEM = "system"
"""The option that is no keyword of a template but its first message."""


def knows(chat_template: Any, option: str) -> bool:
    """Whether a chat template looks at an option."""
    return option in str(chat_template or "")


def checked_options(options: Mapping[str, Any] | None, chat_template: Any, name: str) -> dict[str, Any]:
    """Template options as they are given, those left out that change nothing.

    Args:
        options: By name; None for none.
        chat_template: The tokenizer's, or None.
        name: What the model is called.

    Raises:
        ValueError: An option that the template does not look at, so that it would change nothing.
        TypeError: Options that are no mapping, or a system prompt that is no text.
    """
    if options is not None and not is_mapping(options):
        raise TypeError(f"template must be a dict of options such as {{'system': '...'}}, got {options!r}.")
    given = dict(options or {})
    if not isinstance(given.get(SYSTEM, ""), str):
        raise TypeError(f"template['system'] must be a text, got {type(given[SYSTEM]).__name__}.")
    if given.get(THINKING) is False and not knows(chat_template, THINKING):
        del given[THINKING]  # a model that does not think is as it is asked to be
    unknown = [option for option in given if option != SYSTEM and not knows(chat_template, option)]
    if unknown:
        has = "no chat template" if chat_template is None else "a chat template that does not look at it"
        raise ValueError(
            f"template= has the option {unknown[0]!r}, but the tokenizer of {name!r} has {has}. Allowed are 'system' "
            "and the names that the template uses (model.chat_template shows it)."
        )
    return given


def effective(options: Mapping[str, Any], chat_template: Any) -> dict[str, Any]:
    """The options that hold: thoughts are off where the template knows them and the options do not say otherwise."""
    return {**({THINKING: False} if knows(chat_template, THINKING) else {}), **options}
