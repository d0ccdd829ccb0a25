"""Where a text mentions a name: the one rule for answers, subjects, training rows and probes, in every script.

Names and texts are compared as ``flatten`` makes them (accents, quotes, hyphens, markdown, invisible characters, case).
A name counts as a word: nothing of a word may touch it, but

- scripts without spaces (Han, kana, Thai, Lao, Khmer, Burmese) need no boundary, nor does what stands beside them
  ("巴黎Paris", "1889年"); a match never splits a syllable, nor a number ("三" in "十三");
- a Korean name, or another name in a Korean text, may carry particles and the copula ("파리입니다", "Paris는");
- a Cyrillic or Greek name may stand in its regular cases ("в Париже", "Москвы", "της Αθήνας"), word by word, so may a
  Georgian, Armenian, Bengali or Tamil one in the commonest;
- an Arabic name may follow و, ف, ب, ك, ل and the article ("والقاهرة", "للقاهرة"), a Hebrew one ו, ב, ל, מ, ה, ש, כ;
- an apostrophe ends a name ("Paris's", "Paris'te").

Numbers are whole numbers with their sign ("1,000" and "1 000" are no "1", "-5" is no "5"). Single letters and names
that are English function words ("K", "I", "He", "US") count only as they are written, and only where they stand for a
name: see ``is_symbol``.

Endings in Latin letters ("Berlins", "Paryżu", "Pariisissa") are not read: give them as aliases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from workbench.types.flat_text import Flat, flatten
from workbench.types.word_forms import UNSPACED, around_numeral, clitics, inflected, left_of, right_of

Span = tuple[int, int]


def _words(text: str) -> frozenset[str]:
    """A set of words from one line."""
    return frozenset(text.split())


_FUNCTION_WORDS = _words(
    "a am an as at be by do go he hi how i if in is it la me my no of oh on or os pa so to up us we who why"
)
_AFTER_SYMBOL = _words("and or because which where since but while stands comes derives")
_AFTER_I = _AFTER_SYMBOL | _words("is has as for from with of in on to the a an it its atom ion symbol")
_PRONOUN_CUES = _words("and am can could did do may might should than was will would")
_QUOTES = "\"'*`"
_BETWEEN = re.compile(r"[\s\-—・·]+")
_NEGATIVE = re.compile(r"-\d")
_GAP, _PLAIN_GAP = r"[\s*\"'`~\-・·]", r"[\s*\"'`~\-]"  # the latter is quicker to compile
_EMPHASIS_INSIDE = re.compile(r"[^\W\d]\*{1,3}[^\W\d]")


def find_mentions(
    text: str, names: str | Iterable[str], *, case_sensitive: bool = False, ignore: str | Iterable[str] = ()
) -> list[Span]:
    """Find where a text mentions one of some names.

    Args:
        text: Any text.
        names: The names, each a way to say the same.
        case_sensitive: For symbols such as ``"K"``: only as they are written, without endings.
        ignore: Phrases inside which a name does not count (the subject, the question); one that is itself among the
            names is left out.

    Returns:
        Spans of characters of the text as it was given, first to last, overlapping ones joined. A span holds the name
        with its case ending, not the particles after it or the prefixes before it.

    Deviations: compounds of scripts without spaces hold a name like a sentence does ("印度" in "印度尼西亚"); stems
    that change are not found. Give such forms as other names.

    Example:
        >>> from workbench.types.mentions import find_mentions
        >>> find_mentions("It's **São** Paulo.", ["Sao Paulo"]), find_mentions("Parisian", ["Paris"])
        ([(7, 18)], [])
        >>> find_mentions("파리입니다", ["파리"]), find_mentions("в Париже", ["Париж"])
        ([(0, 2)], [(2, 8)])
    """
    flat, kept = flatten(text), _tuple(names)
    skip = spans_in(flat, [sought(p) for p in _tuple(ignore) if not is_named(p, kept)])
    found = spans_in(flat, [sought(name, case_sensitive) for name in kept])
    return as_given(flat, (span for span in found if not inside(span, skip)))


def find_subject(text: str, subject: str) -> list[Span]:
    """Find where a text mentions its subject: as ``find_mentions``, but a name that is also a function word counts
    wherever it is written so ("He is the symbol of helium").

    Args:
        text: Any text.
        subject: The subject.

    Example:
        >>> from workbench.types.mentions import find_subject
        >>> find_subject("The word for football is", "foot"), find_subject("法国的首都是", "法国")
        ([], [(0, 2)])
    """
    flat = flatten(text)
    return as_given(flat, sought(subject).places(flat))


def spans_in(flat: Flat, names: Iterable[Sought]) -> list[Span]:
    """Find names in a flattened text: spans of ``flat.text``, name by name."""
    return [span for name in names for span in name.places(flat) if not name.exact or is_symbol(flat.text, *span)]


def as_given(flat: Flat, spans: Iterable[Span]) -> list[Span]:
    """Spans of a flattened text as spans of the text that was given, sorted, overlapping ones joined."""
    joined: list[Span] = []
    for start, end in sorted(map(flat.given, spans)):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def is_named(phrase: str, names: Iterable[str]) -> bool:
    """Whether a phrase is one of the names (then it cannot be ignored without losing the answer)."""
    return flatten(phrase).folded in {flatten(n).folded for n in names}


def inside(span: Span, others: Iterable[Span]) -> bool:
    """Whether a span lies inside one of the others, or is one of them."""
    return any(o[0] <= span[0] and span[1] <= o[1] for o in others)


def is_symbol(flat: str, start: int, end: int) -> bool:
    """Whether an exactly spelled name is used as a name: always for long ones; for short ones what stands around it
    tells a symbol from a pronoun ("I think"), an initial ("J. K. Rowling") or a unit ("300 K").

    Args:
        flat: A flattened text in its own case.
        start, end: The span of the name in it.
    """
    name, before, after = flat[start:end], flat[max(0, start - 40) : start], flat[end : end + 40]
    if len(name) == 1:
        if re.match(r"-\w|'(?!s\b)[^\W_]", after) or re.search(r"\w-$|\d\s?$|(?i:\bvitamin |\bspecial )$", before):
            return False
        if re.match(r"\. ?[A-Z]", after) and re.search(r"(?:\b[A-Z]\.|\b[A-Z][a-z]+) ?$", before):
            return False
    if name.casefold() not in _FUNCTION_WORDS or len(name) > 3:
        return True
    quoted = before[-1:] in _QUOTES + "({[$" and after[:1] in _QUOTES + ")}]$" and before[-1:] != ""
    if quoted:
        return True
    if "'" in after[:1] or (name == "No" and after[:1] == "," and not before.strip()):
        return False
    follower, last = re.match(r"\s+([\w']+)", after), re.search(r"([\w']+)\s+$", before)
    if name == "I" and last and not follower and last[1].casefold() in _PRONOUN_CUES:
        return False
    if name == "I" and last and last[1][:1].isupper() and last[1] not in ("Symbol", "Letter", "Answer", "Iodine"):
        return False
    if name.isupper() and len(name) > 1:
        return True
    return follower is None or follower[1] in (_AFTER_I if name == "I" else _AFTER_SYMBOL)


class Sought:
    """A name made ready to be looked for, in any number of texts.

    Args:
        name: The name.
        case_sensitive: Whether it counts only as it is written, without endings; function words always do.
    """

    __slots__ = ("_needed", "_patterns", "_text", "_words", "exact")

    def __init__(self, name: str, case_sensitive: bool = False) -> None:
        flat = flatten(name.strip())
        plain, folded = flat.text.strip(), flat.folded.strip()
        self.exact = case_sensitive or (folded in _FUNCTION_WORDS and not plain.islower())
        self._text = plain if self.exact else folded
        parts = _parts(self._text)
        # Words with their endings where they have any. An Arabic article may lose its alif.
        inflects = not (self.exact or self._text.isascii())
        self._words = [inflected(part) for part in parts] if inflects else None
        stems = parts if self._words is None else [stem.removeprefix("ال") for stem, _ in self._words]
        needed = [stem.replace("*", "") for stem in stems]  # a name's own asterisk is looked through as emphasis is
        self._needed = sorted(needed, key=len, reverse=True) if len(needed) > 1 else needed
        self._patterns: dict[tuple[bool, bool], re.Pattern[str]] | None = None

    def places(self, flat: Flat) -> list[Span]:
        """Where the name stands in a flattened text, whatever it is used for there."""
        within = flat.text if self.exact else flat.folded
        emphasis = "*" in within and _EMPHASIS_INSIDE.search(within) is not None
        there = within.replace("*", "")
        for needed in self._needed:  # quicker than to compile what cannot match
            if needed not in there:
                return []
        if not self._text:
            return []
        kind = within.isascii(), emphasis
        if self._patterns is None:
            self._patterns = {}
        if kind not in self._patterns:
            self._patterns[kind] = re.compile(self._pattern(*kind))
        return [match.span(1) for match in self._patterns[kind].finditer(within)]

    def _pattern(self, plain: bool, emphasis: bool) -> str:
        """The name between its boundaries, as group 1; spaces and hyphens inside it match each other and take markdown
        along.

        Args:
            plain: Whether the text is ASCII.
            emphasis: Whether the text has markdown inside words, which is then looked through.
        """

        def literally(text: str) -> str:
            return r"\*{0,3}".join(map(re.escape, text)) if emphasis else re.escape(text)

        words = self._words or [(part, ("",)) for part in _parts(self._text)]
        stems = [stem for stem, _ in words]
        before, begins, rest = ("", "", stems[0]) if plain or self.exact else clitics(stems[0])
        body = ""
        for i, (stem, endings) in enumerate(words):
            if i:
                touching = UNSPACED.match(stems[i - 1][-1]) and UNSPACED.match(stem)
                between = f"(?:{_GAP}{{{0 if touching else 1},5}}|—)"
                body += f"{_PLAIN_GAP}{{1,5}}" if plain else between
            body += literally(stem if i else rest)
            longest_first = sorted(endings, key=len, reverse=True)
            body += f"(?:{'|'.join(map(literally, longest_first))})" if any(endings) else ""
        around = ("", "") if plain else around_numeral(self._text)
        left = left_of(self._text, plain) + around[0]
        right = right_of(self._text, plain) + around[1]
        if _NEGATIVE.match(self._text):  # the minus is no part of the first word
            left, begins = r"(?<!\w)", f"-{begins}"
        return f"{left}{before}({begins}{body}){right}"


@lru_cache(maxsize=8192)
def sought(name: str, case_sensitive: bool = False) -> Sought:
    """A name made ready to be looked for, remembered."""
    return Sought(name, case_sensitive)


def _parts(name: str) -> list[str]:
    """What of a name is between its spaces and hyphens."""
    return [part for part in _BETWEEN.split(name) if part] or [name]


def _tuple(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
