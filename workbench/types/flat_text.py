"""Texts made comparable: one spelling for what is written in several ways, with the way back to the text as given.

``flatten`` takes away what a reader does not take for another name: compatibility forms (NFKC), composed or combining
accents on Latin and Greek letters, Russian stress and the dots of ё, Arabic and Hebrew vowel points, the shapes of
quotes and hyphens, invisible characters, digits of other scripts. It keeps case; ``Flat.folded`` does not, and has the
same length.

What is kept apart: Chinese in simplified and traditional characters, hiragana and katakana, "ü" and "ue", "й" and "и".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

_INVISIBLE = "\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe0e\ufe0f\ufeff"
_REPLACED = str.maketrans(
    {"‘": "'", "’": "'", "‛": "'", "ʼ": "'", "ʻ": "'", "′": "'", "׳": "'", "“": '"', "”": '"', "„": '"', "‟": '"'}
    | {"«": '"', "»": '"', "״": '"', "–": "—", "\u2010": "-", "\u2212": "-", "־": "-", "_": "*"}
    | {"ı": "i", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "ħ": "h", "Ħ": "H"}
    | {"æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th", "Þ": "TH"}
    | {"ی": "ي", "ى": "ي", "ک": "ك", "\u0640": ""}
)
_ACCENTS = re.compile(
    f"[{_INVISIBLE}]"
    "|(?<=[A-Za-z\u00c6-\u024f\u0370-\u03ff])[\u0300-\u036f]+"
    "|(?<=[\u0400-\u04ff])[\u0300\u0301]+|(?<=[Ее])\u0308"
    "|[\u064b-\u065f\u0670\u06d6-\u06ed]"
    "|[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]"
)


@dataclass(frozen=True, slots=True)
class Flat:
    """A text made comparable.

    Args:
        text: What is compared, in its own case.
        folded: The same without case, character for character.
        starts: Where in the given text each piece begins that was flattened as one, and the given text's end; None
            where both texts agree in every place.
        pieces: For each character of ``text``, the index of its piece.
    """

    text: str
    folded: str
    starts: Sequence[int] | None = None
    pieces: Sequence[int] = ()

    def given(self, span: tuple[int, int]) -> tuple[int, int]:
        """A span of characters of ``text`` (not an empty one) as a span of the text that was given."""
        if self.starts is None:
            return span
        return self.starts[self.pieces[span[0]]], self.starts[self.pieces[span[1] - 1] + 1]


@lru_cache(maxsize=4096)
def flatten(text: str) -> Flat:
    """Make a text comparable.

    Example:
        >>> from workbench.types.flat_text import flatten
        >>> flat = flatten("“São Paulo”")
        >>> flat.text, flat.given((1, 4))
        ('"Sao Paulo"', (1, 4))
    """
    if text.isascii():
        plain = text.replace("_", "*")
        return Flat(plain, plain.lower())
    starts = [i for i, c in enumerate(text) if c < "\u0300" or not i or not _joins(c)]
    starts.append(len(text))
    flat = [_flat_piece(text[a:b]) for a, b in pairwise(starts)]
    plain = "".join(flat)
    return Flat(plain, plain.casefold(), starts, [k for k, piece in enumerate(flat) for _ in piece])


def _joins(character: str) -> bool:
    """Whether a character may become one with what stands before it: a mark, a vowel or final consonant of Hangul, or
    a voicing mark of kana."""
    return (
        unicodedata.category(character)[0] == "M"
        or "\u1160" <= character <= "\u11ff"
        or character in ("\uff9e", "\uff9f")
    )


@lru_cache(maxsize=16384)
def _flat_piece(piece: str) -> str:
    """A character with the marks on it, made comparable; casefolding keeps the length of what is returned."""
    if piece.isascii():
        return piece.replace("_", "*")
    plain = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", piece).translate(_REPLACED))
    plain = unicodedata.normalize("NFC", _ACCENTS.sub("", plain)).translate(_REPLACED)
    plain = "".join(str(unicodedata.decimal(c, c)) for c in plain)
    return "".join(c if len(c.casefold()) == 1 else c.casefold() for c in plain)
