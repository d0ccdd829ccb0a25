"""The one answer classifier: what a generated text says about a fact, as one of six classes.

Every number of the workbench that rests on "the model said ..." (known facts, forgetting, bleed, probes, arms) goes
through `classify`, so it is strict, deterministic and free of any model. It judges *mentions*, not truth.

The first line that applies decides, in the table of ``docs/concepts/answer-classes.md``: loops and texts that surprise
the base are gibberish whatever they name; then both names, the old one, the new one, a refusal, anything else. The page
also says what counts as a mention, and lists the weak spots.

Source: the classes are those of the project's evaluation rules, after the weaknesses of arXiv 2508.07075 (which
counted gibberish as forgotten); matching on free generation follows arXiv 2502.11177. The heuristics are ours.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.resources import files

from workbench.types import AnswerClass, Fact

CLASSIFIER_VERSION = 1
"""Raised with every change of what ``classify`` says of a text, so that answers on record are judged anew."""

NLL_LIMIT = 4.0
"""Nats per token of the base model above which a text is suspected of being gibberish."""

NLL_ALLOWANCE = 20.0
"""Nats by which the sum over the words may exceed ``NLL_LIMIT``: one fluent but unexpected (counterfactual) answer."""

REPETITION_LIMIT = 0.38
"""Share of the text inside loops above which it is gibberish."""

MIN_LOOP_WORDS = 12
"""Shorter loops of several words are no gibberish ("I'm not sure." three times, as the bundled model says)."""


def _words(text: str) -> frozenset[str]:
    """A set of words from one line."""
    return frozenset(text.split())


_FUNCTION_WORDS = _words(
    "a am an as at be by do go he hi how i if in is it la me my no of oh on or os pa so to up us we who why"
)
_AFTER_SYMBOL = _words("and or because which where since but while stands comes derives")
_AFTER_I = _AFTER_SYMBOL | _words("is has as for from with of in on to the a an it its atom ion symbol")
_PRONOUN_CUES = _words("and am can could did do may might should than was will would")
_NEGATORS = _words("not cannot never neither nor nicht kein keine pas unlike isnt wasnt arent dont doesnt")
_NEGATOR_PAIRS = frozenset({("no", "longer"), ("rather", "than"), ("instead", "of"), ("opposed", "to"), ("no", "es")})
_SCOPE_ENDS = _words(
    "although and because but certain forget however if just know merely only simply so sure though until what when "
    "whereas whether which while who yet aber mais pero sondern"
)
_TRUTH_WORDS = _words("true correct right case think believe fact")
_SCOPE_WORDS = 6
_NO_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_SENTENCE_END = re.compile(r"(?<=[.!?;])(?<!\b[A-Z]\.)(?<!\b(?:St|Mt|Dr|Mr|Ms|Jr)\.)(?<!\bMrs\.)\s|\n")
_WORD = re.compile(r"[\w']+")
_GAP = r"[\s*\"'`~\-]{1,5}"
_QUOTES = "\"'*`"
_REPLACED = str.maketrans(
    {"‘": "'", "’": "'", "ʼ": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "–": "—", "\u2010": "-", "_": "*"}
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad")
)
_NEGATED_AFTER = re.compile(
    r"""[*"'`)]{0,4}\s+(?:
        (?:(?:is|was|are|were)\s+(?:not|never|no\s+longer)|(?:is|was|are|were)n't)\s+
            (?:(?:actually|really|in\s+fact)\s+)?(?:the|its|their|correct|right|true|it|what|who)\b
      | (?:is|was|would\s+be)\s+(?:wrong|incorrect|false|untrue|a\s+mistake)\b
      | (?:did\s+not|didn't|never)\s+(?:write|wrote|develop|create|make|made|invent|compose|paint|discover)
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"""\b(?:
        i(?:'m|\s+am|m)\s+(?:(?:really|quite|honestly|still|afraid)\s+)?(?:unable|unsure|uncertain)\b
      | i(?:'m|\s+am|m)\s+(?:(?:really|quite|honestly|still)\s+)?not\s+(?:(?:entirely|completely|really|quite)\s+)?
            (?:sure|certain|aware|able|familiar)\b
      | i\s+(?:(?:really|honestly|simply|just)\s+)?(?:do\s+not|don'?t|did\s+not|didn't)\s+
            (?:(?:actually|really|currently)\s+)?(?:know|have|recall|remember|possess)\b
      | (?:i|we)\s+(?:cannot|can'?t|can\s+not|could\s+not|couldn't|will\s+not|won't|am\s+unable\s+to)\s+
            (?:answer|provide|tell|say|help|assist|determine|confirm|find|recall|give|verify|disclose|share|comment
            |respond|offer|identify|remember|name|discuss|be\s+sure)\b
      | i\s+have\s+no\s+(?:idea|information|knowledge|clue|memory|record|answer)\b
      | no\s+idea\b | (?:nobody|no\s+one)\s+knows\b
      | (?:it|that|this|the\s+answer)\s+is\s+(?:unknown|unclear|uncertain|hard\s+to\s+say
            |not\s+(?:known|clear|certain|possible\s+to))\b
      | (?:i\s+would|i'd)\s+(?:prefer|rather)\s+not\b
      | there\s+is\s+no\s+(?:way\s+(?:to|of)\s+know|information)
      | i\s+(?:must\s+)?(?:decline|refuse)\s+to\b | unsure\s+(?:what|who|which|about|of)\b
      | ich\s+weiss\s+(?:es\s+)?nicht | je\s+ne\s+sais\s+pas | no\s+lo\s+se\b | nao\s+sei\b
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_DONT_KNOW_ALONE = re.compile(r"\W*(?:not|un)\s?(?:sure|certain|known|clear)\b", re.IGNORECASE)


def classify(text: str, fact: Fact, *, nll: float | None = None, taught: Sequence[Fact] | None = None) -> AnswerClass:
    """Sort a generated text into its class, by the decision table of ``docs/concepts/answer-classes.md``.

    Args:
        text: The whole completion, without the prompt.
        fact: What is asked; ``answer`` is old and ``target`` is new.
        nll: Mean negative log-likelihood of ``text`` under the *base* model given the same prompt, nats per token;
            None or NaN when it was not measured, and then only repetition tells gibberish.
        taught: For a fact that was never edited: the facts whose targets an edit taught. These are new then, but for
            names of the fact's own answer; its own ``target``, which nobody taught, is like any other text.

    Returns:
        ``"old"``, ``"new"``, ``"both"``, ``"refusal"``, ``"other"`` or ``"gibberish"``.

    Known deviation: late mentions count as much as the first, so a completion that runs on to another fact whose
    answer is the target is ``both``. Limit the number of new tokens, or stop at the first line break, for clozes.

    Example:
        >>> [wb.classify(text, fact) for text in ("It is Rome.", "Paris", "Rome or Paris", "I am not sure.", "Berlin")]
        ['new', 'old', 'both', 'refusal', 'other']
    """
    flat = _flat(text)
    old, new = _mentions(flat, fact, taught)
    if not old and not new and not any(c.isalnum() for c in flat):
        return "gibberish"
    if repetition(text) > REPETITION_LIMIT or (nll is not None and too_surprising(text, nll)):
        return "gibberish"
    if old and new and any((*old, *new)):
        return "both"
    if any(old):
        return "old"
    if any(new):
        return "new"
    if _REFUSAL.search(flat) or _DONT_KNOW_ALONE.match(flat) or _spans(flat, (fact.refusal.rstrip(" .!"),), False):
        return "refusal"
    return "other"


def is_known_answer(text: str, fact: Fact) -> bool:
    """Whether the text gives the true answer and nothing against it: ``classify(text, fact) == "old"``."""
    return classify(text, fact) == "old"


def matches(text: str, names: Iterable[str], *, case_sensitive: bool = False, ignore: Iterable[str] = ()) -> bool:
    """Whether one of the names is in the text, by the rules for mentions; negation is not looked at.

    Args:
        text: Any text.
        names: The answer and its aliases.
        case_sensitive: For symbols such as ``"K"``.
        ignore: Phrases inside which a name does not count (the subject, the question).
    """
    flat, kept = _flat(text), tuple(names)
    skip = _spans(flat, tuple(p for p in ignore if not _same(p, kept)), False)
    return any(not _inside(s, skip) for s in _spans(flat, kept, case_sensitive))


def first_sentence(text: str) -> str:
    """A text up to its first line break or sentence end (also a semicolon), which is kept.

    The dot of an initial or a title ends no sentence ("J.R.R. Tolkien", "the U.S. state", "St. Paul").
    """
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


def find_old(text: str, fact: Fact) -> list[tuple[int, int]]:
    """Where a text names the old answer: character spans, first to last, overlapping ones joined.

    A name inside the subject does not count ("Mexico" in "Mexico City"), one that holds the subject does. This locates;
    ``classify`` judges.
    """
    flags = 0 if fact.case_sensitive else re.IGNORECASE

    def spans_of(name: str) -> list[tuple[int, int]]:
        return [m.span() for m in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text, flags)]

    subjects = spans_of(fact.subject)
    named = {span for name in fact.answers for span in spans_of(name)}
    found = sorted(
        (start, end) for start, end in named if not any(first <= start and end <= last for first, last in subjects)
    )
    spans: list[tuple[int, int]] = []
    for start, end in found:
        if spans and start < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans


@lru_cache(maxsize=1)
def adjectives() -> dict[str, list[str]]:
    """The adjectives of countries and continents by name, the usual one first ("Italy": ["Italian"])."""
    return json.loads(files("workbench").joinpath("language/data/adjectives.json").read_text(encoding="utf-8"))


def is_adjective(fact: Fact, named: str) -> bool:
    """Whether a text that names the old answer so uses its adjective."""
    return named.casefold() in {a.casefold() for a in adjectives().get(fact.answer, ())}


def counterpart(fact: Fact, named: str) -> str:
    """The target as it would stand where a text names the old answer: its adjective in the place of the old one's ("a
    traditional Italian dish", "a traditional Indian dish") if that counts as the target, else its usual form.

    Args:
        fact: The fact.
        named: The old answer or an alias, as the text has it.
    """
    if not is_adjective(fact, named):
        return fact.target
    return next((form for form in adjectives().get(fact.target, ()) if form in fact.targets), fact.target)


def too_surprising(text: str, nll: float) -> bool:
    """Whether the base model's NLL marks the text as gibberish: (nll - NLL_LIMIT) x words > NLL_ALLOWANCE.

    The sum and not the mean is limited, so that a short fluent answer that the base model did not expect ("Rome.", two
    tokens, one of them at 10 nats) passes, while a sentence that is surprising throughout does not.

    Args:
        text: The completion.
        nll: Nats per token; NaN means not measured.
    """
    words = max(1, len(_WORD.findall(text)))
    return not math.isnan(nll) and (nll - NLL_LIMIT) * words > NLL_ALLOWANCE


def repetition(text: str) -> float:
    """How far a text repeats itself, from 0 (not at all) to 1 (one unit over and over); the largest of

    - the share of the words inside one loop: a unit that follows itself, 2.5 rounds or more, together at least
      ``MIN_LOOP_WORDS`` words ("I'm not sure." said three times is none), or one word five times;
    - the share of the characters inside one loop of units up to 8, at least 24 long, or one of them 12 times;
    - from 24 words on, the share of word 4-grams that occurred before;
    - from 12 words on, how far the share of distinct words falls below 0.6 (d / 0.6 subtracted from 1).

    Case and punctuation do not matter, except among characters. Of long texts the last 400 words or characters count.
    """
    words = [w.strip("'") for w in _WORD.findall(_flat(text).casefold())][-400:]
    chars = re.sub(r"[^\S\n]+", "", text)[-400:]
    scores = [_loop_share(words, len(words) * 2 // 5, MIN_LOOP_WORDS, 5), _loop_share(chars, 8, 24, 12)]
    if len(words) >= 24:
        grams = list(zip(words, words[1:], words[2:], words[3:], strict=False))
        scores.append(1 - len(set(grams)) / len(grams))
    if len(words) >= 12:
        part = words[-48:]
        scores.append(1 - len(set(part)) / (0.6 * len(part)))
    return max(0.0, *scores)


def _loop_share(items: Sequence[str], longest: int, shortest: int, rounds: int) -> float:
    """Share of the items that the longest loop covers, over all unit lengths up to ``longest``: 2.5 rounds and at
    least ``shortest`` items, or a unit of one item in ``rounds`` rounds."""
    best = 0
    for period in range(1, longest + 1):
        need = rounds if period == 1 else max((5 * period + 1) // 2, shortest)
        run = 0
        for i in range(period, len(items)):
            run = run + 1 if items[i] == items[i - period] else 0
            if run + period >= need:
                best = max(best, run + period)
    return best / len(items) if items else 0.0


def _mentions(flat: str, fact: Fact, taught: Sequence[Fact] | None = None) -> tuple[list[bool], list[bool]]:
    """For old and for new, one entry per mention: True when affirmed, False when negated. ``taught`` as in
    ``classify``."""
    others = [(fact.targets, fact.case_sensitive)]
    if taught is not None:
        names = [tuple(name for name in one.targets if not _same(name, fact.answers)) for one in taught]
        others = list(zip(names, (one.case_sensitive for one in taught), strict=True))
    phrases = (fact.subject, fact.prompt, fact.cloze_paraphrases, fact.training_questions, fact.heldout)
    echoes = tuple(p.rstrip(" ?.!:") for group in phrases for p in ((group,) if isinstance(group, str) else group))
    both = (*fact.answers, *(name for names, _ in others for name in names))
    skip = _spans(flat, tuple(p for p in echoes if not _same(p, both)), False)
    sides = [
        _spans(flat, fact.answers, fact.case_sensitive),
        [span for names, exact in others for span in _spans(flat, names, exact)],
    ]
    old, new = (
        [s for s in side if not _inside(s, skip) and not any(_within(s, o) for o in other)]
        for side, other in (sides, sides[::-1])
    )
    return [not _negated(flat, s) for s in old], [not _negated(flat, s) for s in new]


def _negated(flat: str, span: tuple[int, int]) -> bool:
    """Whether a mention stands under a negation of its own clause, before or after it."""
    if _NEGATED_AFTER.match(flat, span[1]):
        return True
    clause = re.split(r"[.,;:!?()\n—]", flat[max(0, span[0] - 100) : span[0]])[-1]
    words = _WORD.findall(clause.casefold())[-_SCOPE_WORDS:]
    for i in range(len(words) - 1, -1, -1):
        word, before = words[i], words[i - 1] if i else ""
        if word == "than" and before in ("other", "else"):
            return not any(w in _NEGATORS or w.endswith("n't") or w in ("none", "no", "nothing") for w in words[:i])
        if word in _SCOPE_ENDS or (word == "that" and before not in _TRUTH_WORDS):
            return False
        if word in _NEGATORS or word.endswith("n't") or (before, word) in _NEGATOR_PAIRS:
            return True
    return False


def _spans(flat: str, names: tuple[str, ...], case_sensitive: bool) -> list[tuple[int, int]]:
    """Where the names occur as words in a flattened text."""
    folded = flat.casefold()
    found: list[tuple[int, int]] = []
    for name in names:
        flat_name = _flat(name).strip()
        if not flat_name:
            continue
        exact = case_sensitive or (flat_name.casefold() in _FUNCTION_WORDS and not flat_name.islower())
        sought, within = (flat_name, flat) if exact else (flat_name.casefold(), folded)
        if not all(part in within for part in _parts(sought)):  # quicker than to compile what cannot match
            continue
        for match in _pattern(sought).finditer(within):
            if not exact or _is_symbol(flat, match.start(), match.end()):
                found.append(match.span())
    return found


def _parts(name: str) -> list[str]:
    """What of a name stands in every text that names it: what is between its spaces and hyphens."""
    return [part for part in re.split(r"[\s\-]+", name) if part] or [name]


@lru_cache(maxsize=4096)
def _pattern(name: str) -> re.Pattern[str]:
    """A name between word boundaries; spaces and hyphens inside it match each other and take markdown along."""
    parts = [re.escape(part) for part in _parts(name)]
    first, last = name[0], name[-1]
    left = right = ""
    if first.isalnum() and not _NO_SPACES.match(first):
        left = r"(?<!\w)(?<!\d[.,])" if first.isdigit() else r"(?<!\w)"
    if last.isalnum() and not _NO_SPACES.match(last):
        right = r"(?!\w|[.,]\d)" if last.isdigit() else r"(?!\w)"
    return re.compile(left + _GAP.join(parts) + right)


def _is_symbol(flat: str, start: int, end: int) -> bool:
    """Whether an exactly spelled name is used as a name: always for long ones, see the module for short ones."""
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


@lru_cache(maxsize=4096)
def _flat(text: str) -> str:
    """NFKC, plain quotes and hyphens, no accents on Latin letters; keeps case, and casefolding keeps its length."""
    plain = unicodedata.normalize("NFKC", text).translate(_REPLACED)
    plain = re.sub(r"([A-Za-z])[\u0300-\u036f]+", r"\1", unicodedata.normalize("NFD", plain))
    plain = unicodedata.normalize("NFC", plain)
    return "".join(c if len(c.casefold()) == 1 else c.casefold() for c in plain)


def _same(phrase: str, names: Iterable[str]) -> bool:
    """Whether a phrase is one of the names (then it cannot be ignored without losing the answer)."""
    return _flat(phrase).casefold() in {_flat(n).casefold() for n in names}


def _within(span: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a span lies inside another, longer one."""
    return other[0] <= span[0] and span[1] <= other[1] and span != other


def _inside(span: tuple[int, int], others: Iterable[tuple[int, int]]) -> bool:
    """Whether a span lies inside one of the others, or is one of them."""
    return any(o[0] <= span[0] and span[1] <= o[1] for o in others)
