"""The help texts of the command line, as the parser itself writes them."""

from __future__ import annotations

import argparse
import os
from unittest import mock

from workbench.cli import _parser

WIDTH = 80
"""Characters of a line of help."""


def cli_help(parser: argparse.ArgumentParser | None = None) -> str:
    """Markdown: the help of the program, then of each command under a heading.

    Args:
        parser: The parser; by default that of ``workbench``.
    """
    parser = _parser() if parser is None else parser
    with mock.patch.dict(os.environ, {"COLUMNS": str(WIDTH + 2), "NO_COLOR": "1"}):
        parts = [_block(parser)]
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                words = {choice.dest: choice.help for choice in action._choices_actions}
                for name, command in action.choices.items():
                    parts.append(f"## {parser.prog} {name}\n\n{_sentence(words.get(name) or '')}\n\n{_block(command)}")
    return "\n\n".join(parts)


def _block(parser: argparse.ArgumentParser) -> str:
    return f"```text\n{parser.format_help().rstrip()}\n```"


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""
