"""The house's docstrings as griffe, which reads Google's style, understands them.

Three things differ: a section of one example is called ``Example``, arguments that are alike share a line (``low, high:
...``), and a class may take its arguments in ``__new__``.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_JOINED = re.compile(r"(    )(\*{0,2}\w+(?:, \*{0,2}\w+)+): (.*)")


def as_google(text: str) -> str:
    """A docstring with every argument on its own and examples under griffe's heading.

    Args:
        text: The docstring, without indentation.
    """
    lines: list[str] = []
    shared: list[tuple[str, list[str]]] = []
    inside = False

    def say_again() -> None:
        for name, words in shared:
            lines.extend((f"    {name}: {words[0]}", *words[1:]))
        shared.clear()

    for line in text.splitlines():
        if line and not line.startswith(" "):
            inside = line in ("Args:", "Attributes:", "Parameters:")
        match = _JOINED.fullmatch(line) if inside else None
        if shared and (match or not line.startswith("        ")):
            say_again()
        if match:
            first, *others = match[2].split(", ")
            lines.append(f"    {first}: {match[3]}")
            shared = [(name, [match[3]]) for name in others]
        else:
            lines.append("Examples:" if line == "Example:" else line)
            for _, words in shared:
                words.append(line)
    say_again()
    return "\n".join(lines)


def head_of(cls: griffe.Class) -> str:
    """The source of a class up to its first method but the one that takes its arguments."""
    methods = [one for one in cls.members.values() if isinstance(one, griffe.Function) and one.lineno]
    later = [one for one in methods if one.name not in ("__init__", "__new__")]
    starts = [min(part.lineno or 0 for part in (one, *one.decorators)) for one in later]
    lines = cls.lines[: min(starts) - (cls.lineno or 1)] if starts else cls.lines
    return textwrap.dedent("\n".join(lines)).rstrip()


class HouseStyle(griffe.Extension):
    """Reads the house's docstrings."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = as_google(obj.docstring.value)

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Let the arguments of ``__new__`` be those of the class, and keep how it begins for the template."""
        cls.extra["docsite"]["head"] = head_of(cls)
        made = cls.members.get("__new__")
        if isinstance(made, griffe.Function) and "__init__" not in cls.members:
            cls.set_member(
                "__init__", griffe.Function("__init__", parameters=made.parameters, docstring=made.docstring)
            )
