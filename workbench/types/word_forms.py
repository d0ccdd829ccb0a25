"""How a name stands in a text of each script: what may touch it, and which endings and prefixes it may take.

All of it works on flattened texts (``workbench.types.flat_text``), so that accents and points do not matter. The rules
are those of a reader who has no dictionary: they know regular endings, no stems that change ("Лев", "Льва") and no
parts of compounds ("印度" is found in "印度尼西亚", as "パリ" in "パリジャン").
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u3005-\u3007\u3040-\u312f\u31f0-\u31ff\u3400-\u9fff"
    "\ua000-\ua4cf\uaa60-\uaa7f\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
"""Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Tai, kana, bopomofo, Han, Yi."""
_SIGNS = "\u0300-\u036f\u0900-\u0963\u0966-\u096f\u0971-\u0df3"
"""Marks that Python takes for no part of a word, and the scripts of India, which are full of them."""
_NOT_AFTER_SYLLABLE = (
    "\u0300-\u036f\u0e30-\u0e3a\u0e45\u0e47-\u0e4e\u0eb0-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u1056-\u1059\u105e-\u1060"
    "\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d\u108f\u109a-\u109d\u17b4-\u17d3\u17dd\u3099\u309a"
    "ぁぃぅぇぉゃゅょゎァィゥェォャュョヮー"
)
"""What belongs to the syllable before it: vowels, tones and stacked consonants; small kana but っ ("パリって")."""
_BEFORE_SYLLABLE = "\u0e40-\u0e44\u0ec0-\u0ec4"
"""Vowels of Thai and Lao that are written before the consonant they follow."""
_HAN_NUMERALS = "〇零一二两兩三四五六七八九十百千万萬亿億兆"
_HANGUL = "\uac00-\ud7a3"

UNSPACED = re.compile(f"[{_UNSPACED}]")
"""A character of a script without spaces."""
_ONLY_NUMERALS = re.compile(f"[{_HAN_NUMERALS}]+")
_ARABIC, _HEBREW = re.compile("[\u0600-\u06ff]{3}"), re.compile("[\u05d0-\u05ea]{3}")

_PARTICLES = (
    "이|가|은|는|을|를|의|에|에서|에게|에게서|한테|께|께서|로|으로|로서|으로서|로써|으로써|와|과|도|만|부터|까지|나|이나|든지|이든지|든|이든|"
    "라|이라|라고|이라고|라는|이라는|라며|이라며|라면|이라면|란|이란|며|이며|고|이고|하고|랑|이랑|처럼|보다|마다|조차|마저|밖에|뿐|대로|같이|야|이야|"
    "다|이다|입니다|입니까|예요|이에요|에요|이예요|였다|이었다|였습니다|이었습니다|였던|이었던|죠|이죠|지|이지|지요|이지요|지만|이지만|인데|인데요|인지|인가|인가요|"
    "일까|일까요|일|임|네요|이네요|군요|이군요|니까|이니까|라서|이라서|여서|이어서|요|이요|아니라|이아니라|씨|님|시"
)
_AFTER_NAME = rf"(?=(?:{_PARTICLES}){{1,3}}(?![^\W{_UNSPACED}]))"

_RUSSIAN = (
    ("ский", "ский ского скому ским ском"),
    ("цкий", "цкий цкого цкому цким цком"),
    ("ий", "ий его ему им ем ия ию ием ии"),
    ("ый", "ый ого ому ым ом"),
    ("ой", "ой ого ому ым ом"),
    ("ая", "ая ой ую ою"),
    ("яя", "яя ей юю ею"),
    ("ое", "ое ого ому ым ом"),
    ("ее", "ее его ему им ем"),
    ("ые", "ые ых ым ыми"),
    ("ие", "ие ия ию ием ии их им ими"),
    ("ия", "ия ии ию ией"),
    ("ія", "ія ії ію ією"),
    ("а", "а ы и е у ой ою ей і"),
    ("я", "я и е ю ей ею і"),
    ("о", "о а у ом е і"),
    ("е", "е я ю ем и а у"),
    ("ь", "ь и я ю ем е ью і"),
    ("й", "й я ю ем е и і"),
    ("ы", "ы ам ами ах"),
    *((vowel, vowel) for vowel in "иуюэєіїё"),
    ("", "- а у ом ем е ы и ым ов ам ами ах і ові"),
)
_GREEK_ENDINGS = (
    ("οσ", "οσ ου ο ε οι ων ουσ"),
    ("ησ", "ησ η"),
    ("ασ", "ασ α"),
    ("α", "α ασ"),
    ("η", "η ησ"),
    ("ο", "ο ου"),
    ("ι", "ι ιου"),
)
_GEORGIAN = (("ი", "ი ის ში იდან ს მა ზე თან ით ად"), ("ა", "ა ას აში ადან აზე ასთან ის ით"))
_ARMENIAN = (("", "- ը ն ի ին ից ում ով"),)
_BENGALI = (("", "- র ের কে তে ে \u09af\u09bc"),)
_TAMIL = (("்", "் ில் ின் ை ுக்கு ிலிருந்து ும்"),)
_ENDINGS = (
    (re.compile("[\u0400-\u04ff]+"), _RUSSIAN),
    (re.compile("[\u0370-\u03ff]+"), _GREEK_ENDINGS),
    (re.compile("[\u10d0-\u10ff]+"), _GEORGIAN),
    (re.compile("[\u0561-\u0587]+"), _ARMENIAN),
    (re.compile("[\u0980-\u09ff]+"), _BENGALI),
    (re.compile("[\u0b80-\u0bff]+"), _TAMIL),
)
"""By script, how a word ends and how it may end instead ("-": nothing more); the first ending that fits decides."""


def left_of(name: str, plain: bool) -> str:
    """What must not stand before a name, as a regular expression.

    Args:
        name: The name, flattened.
        plain: Whether the text is ASCII, so that the rules of other scripts need no look.
    """
    first = name[0]
    if UNSPACED.match(first):
        return f"(?<![{_BEFORE_SYLLABLE}])"
    if not _in_word(first):
        return ""
    left = r"(?<!\w)" if plain else rf"(?<![^\W{_UNSPACED}])(?<![{_SIGNS}])"
    if not first.isdigit():
        return left
    group = r"(?<!\d[ '])" if re.match(r"\d{3}(?!\d)", name) else ""  # "000" in "1 000"
    return left + r"(?<!\d[.,])(?<!\W-)(?<!\A-)" + group


def right_of(name: str, plain: bool) -> str:
    """What must or must not stand after a name, as a regular expression.

    Args:
        name: The name, flattened.
        plain: Whether the text is ASCII.
    """
    last = name[-1]
    if UNSPACED.match(last):
        return f"(?![{_NOT_AFTER_SYLLABLE}])"
    if not _in_word(last):
        return ""
    if last.isdigit():
        group = r"|[ ']\d{3}(?!\d)" if re.search(r"(?<!\d)\d{1,3}\Z", name) else ""  # "1" in "1 000"
        return (r"(?!\w" if plain else rf"(?![^\W{_UNSPACED}{_HANGUL}]") + rf"|[.,]\d{group})"
    return r"(?!\w)" if plain else rf"(?:(?![^\W{_UNSPACED}]|[{_SIGNS}])|{_AFTER_NAME})"


def around_numeral(name: str) -> tuple[str, str]:
    """What must not stand around a name of Han numerals ("三" in "十三"); two empty texts for any other name."""
    if not _ONLY_NUMERALS.fullmatch(name):
        return "", ""
    return f"(?<![{_HAN_NUMERALS}])", f"(?![{_HAN_NUMERALS}])"


def clitics(name: str) -> tuple[str, str, str]:
    """What may be written together with the beginning of a name, before it.

    Returns:
        A regular expression for what stands before the name, one for how the name itself begins there, and the rest of
        the name. The Arabic article loses its alif after "ل" ("القاهرة", "للقاهرة").
    """
    if name.startswith("ال") and _ARABIC.match(name[2:]):
        return "(?:[وف]?[بك]?(?=ا)|[وف]?ل(?=ل))", "(?:ال|ل)", name[2:]
    if _ARABIC.match(name):
        return "(?:[وف]?(?:[بك]?ال|لل|[بكل])?)", "", name
    if _HEBREW.match(name):
        return "[ושכהבלמ]{0,3}", "", name
    return "", "", name


def inflected(part: str) -> tuple[str, Sequence[str]]:
    """A word of a name as its stem and the endings that it may have in a text, its own among them.

    Args:
        part: The word, flattened and without case.

    Returns:
        The stem and the endings; the whole word and one empty ending where it has no others.

    Example:
        >>> from workbench.types.word_forms import inflected
        >>> inflected("париж")[1][:5], inflected("paris")
        (['', 'а', 'у', 'ом', 'ем'], ('paris', ('',)))
    """
    for script, rules in _ENDINGS:
        if script.fullmatch(part):
            for own, endings in rules:
                if part.endswith(own) and len(part) - len(own) >= (2 if own else 3):
                    return part[: len(part) - len(own)], [ending.replace("-", "") for ending in endings.split()]
    return part, ("",)


def _in_word(character: str) -> bool:
    """Whether a character is a part of words: a letter, a digit, or a sign of a script that writes vowels so."""
    return character.isalnum() or re.match(f"[{_SIGNS}]", character) is not None
