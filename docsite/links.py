"""Links of a text of the checkout that leave the docs folder, as the site has them.

The same Markdown is read in the checkout and on the site. There a notebook is a tutorial, CONTRIBUTING.md and
CHANGELOG.md are pages of the development section, and other files are no pages: of a link to one only the words stay.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "development/contributing.md",
    "CHANGELOG.md": "development/changelog.md",
}
"""Files at the top of the checkout that are pages."""

_LINK = re.compile(r"(?<!\\)(!?)\[((?:[^\[\]\\]|\\.|\[[^\]]*\])*)\]\(([^()\s]+)((?:\s+\"[^\"]*\")?)\)")
_CODE = re.compile(r"^(`{3,}|~{3,})[^\n]*\n.*?^\1[ \t]*$|`+[^`\n]*`+", re.MULTILINE | re.DOTALL)


class DeadLink(ValueError):
    """A link to a file that is not there."""


def page_of(path: str, root: Path = ROOT) -> str | None:
    """The page (from the docs folder on) that a path of the checkout is on the site; None for a file that is no page.

    Args:
        path: From the top of the checkout on, such as ``"notebooks/01_quickstart.ipynb"``.
        root: The checkout.

    Raises:
        DeadLink: There is no such file.
    """
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in PAGES:
        return PAGES[path]
    if not (root / path).exists():
        raise DeadLink(f"a link to {path}, which is not there; name a file of the checkout or a page of docs/.")
    if path.startswith("notebooks/") and path.endswith(".ipynb"):
        return f"tutorials/{path.removeprefix('notebooks/')}"
    return None


def rewritten(text: str, home: str, page: str, root: Path = ROOT) -> str:
    """A Markdown text with its relative links as the site has them; code is left as it is.

    Args:
        text: The Markdown.
        home: The folder in which the text lies, from the top of the checkout on; empty for the top itself.
        page: The page on which it is shown, from the docs folder on.
        root: The checkout.

    Raises:
        DeadLink: A link to a file that is not there.
    """
    kept: list[str] = []

    def put_away(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    def one(match: re.Match[str]) -> str:
        picture, words, target, title = match.groups()
        place, mark, anchor = target.partition("#")
        if not place or re.match(r"[a-z][a-z0-9+.-]*:|/", place):
            return match[0]
        path = os.path.normpath(PurePosixPath(home, place)).replace(os.sep, "/")
        if home.split("/")[0] == "docs" and path.startswith("docs/"):
            return match[0]  # mkdocs checks these itself
        there = page_of(path, root)
        if there is None:
            return words
        short = os.path.relpath(there, str(PurePosixPath(page).parent)).replace(os.sep, "/")
        return f"{picture}[{words}]({short}{mark}{anchor}{title})"

    text = _LINK.sub(one, _CODE.sub(put_away, text))
    return re.sub(r"\0(\d+)\0", lambda match: kept[int(match[1])], text)
