"""Identifiers made of texts in any script."""

from __future__ import annotations

import hashlib
import re
import unicodedata


def slug(text: str) -> str:
    """Lower-case identifier of a text, words joined by hyphens (``"The Louvre"`` -> ``the-louvre``).

    Letters, marks and digits of all scripts stay, in their composed form, so that facts of any script have ids of their
    own; where symbols are lost ("♠", flags), or nothing is left, a short hash of the text tells them apart. An ASCII
    text without letters is ``"fact"``.

    Example:
        >>> from workbench.types import slug
        >>> slug("The Eiffel Tower!"), slug("東京、日本"), slug("São Paulo"), slug("♠")
        ('the-eiffel-tower', '東京-日本', 'são-paulo', 'fact-813b4a')
    """
    if text.isascii():
        return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "fact"
    composed = unicodedata.normalize("NFC", text)
    kinds = [(c, unicodedata.category(c)[0]) for c in composed.lower()]
    kept = "".join(c if _stays_in_ids(c, kind) else "-" for c, kind in kinds if kind != "C" or c.isascii())
    name = re.sub("-+", "-", kept).strip("-")
    if name and not any(kind == "S" and not c.isascii() for c, kind in kinds):
        return name
    return f"{name or 'fact'}-{hashlib.sha256(composed.encode('utf-8', 'replace')).hexdigest()[:6]}"


def _stays_in_ids(character: str, kind: str) -> bool:
    """Whether an id keeps a character of such a category; signs for another picture of a symbol say nothing."""
    return kind in "LMN" and not "\ufe00" <= character <= "\ufe0f"
