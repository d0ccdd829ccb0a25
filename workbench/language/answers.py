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
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.resources import files

from workbench.types import AnswerClass, Fact
from workbench.types.flat_text import Flat, flatten
from workbench.types.mentions import Sought, Span, as_given, find_mentions, inside, is_named, sought, spans_in

CLASSIFIER_VERSION = 2
"""Raised whenever some text gets another class: what was classified by another version is classified anew."""

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


def _compiled(source: str) -> re.Pattern[str]:
    """A pattern in words of other scripts, made comparable as the texts are."""
    return re.compile(flatten(source).text, re.VERBOSE | re.IGNORECASE)


_NEGATORS = _words(
    "not cannot never neither nor nicht kein keine pas unlike isnt wasnt arent dont doesnt non nao niet geen nie nem "
    "inte ikke не нет ни ليس ليست לא אינה אינו איננה δεν"
)
_NEGATOR_PAIRS = frozenset(
    {("no", "longer"), ("rather", "than"), ("instead", "of"), ("opposed", "to"), ("no", "es"), ("khong", "phai")}
)
_SCOPE_ENDS = _words(
    "although and because but certain forget however if just know merely only simply so sure though until what when "
    "whereas whether which while who yet aber mais pero sondern sino ma maar ale но а بل אלא αλλα"
)
_TRUTH_WORDS = _words("true correct right case think believe fact")
_SCOPE_WORDS = 6
_ENDS = " ?.!:？。！：؟।"
"""What may end a question or a cloze, and is missing where it is echoed."""
_SENTENCE_END = re.compile(
    r"(?<=[.!?;؟۔।])(?<!\b[A-Z]\.)(?<!\b(?:St|Mt|Dr|Mr|Ms|Jr)\.)(?<!\bMrs\.)\s|\n|(?<=[。｡！？；])"
)
_NEXT_QUESTION = re.compile(r"\n\s*[#*]*\s*(?:question|q|user|human|instruction)\s*\d*\s*[*]*:", re.IGNORECASE)
"""Where a text that runs on begins the next pair of question and answer."""
_CLAUSE_END = re.compile(r"[.,;:!?()\n—。、،؛]")
_WORD = re.compile(r"[\w']+")
_NEGATED_AFTER = re.compile(
    r"""[*"'`)]{0,4}\s+(?:
        (?:(?:is|was|are|were)\s+(?:not|never|no\s+longer)|(?:is|was|are|were)n't)\s+
            (?:(?:actually|really|in\s+fact)\s+)?(?:the|its|their|correct|right|true|it|what|who)\b
      | (?:is|was|would\s+be)\s+(?:wrong|incorrect|false|untrue|a\s+mistake)\b
      | degil\b
      | (?:did\s+not|didn't|never)\s+(?:write|wrote|develop|create|make|made|invent|compose|paint|discover)
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_NOT_BEFORE = _compiled(
    r"(?:不是|並不是|并非|並非|而非|不叫|不在|不会是|不會是|ไม่ใช่|ບໍ່ແມ່ນ|មិនមែន(?:ជា)?)[\s\"'「『“*]*\Z"
)
_NOT_AFTER = _compiled(
    r"""[\s"'」』”*]*(?:
        (?:市|県|都|のこと)?(?:では|じゃ)(?:決して)?(?:ない|なく|なかった|ありません|ございません)
      | (?:이|가|은|는|도)?\s*(?:아니|아닙니다|아닌|아닐)
      | (?:नहीं|নয়|નથી|نہیں|نیست)
    )"""
)
_REFUSAL_ELSEWHERE = _compiled(
    r"""不知道 | 不确定 | 不確定 | 不清楚 | (?:无法|不能)回答 | わかりません | 分かりません | 知りません
      | わからない | 分からない | お答えできません | 모르겠 | 모릅니다 | 알\s?수\s?없 | 확실하지\s않
      | не\s+знаю | не\s+уверен | не\s+могу\s+(?:сказать|ответить)
      | لا\s+(?:أعرف|أعلم) | لست\s+متأكد | לא\s+יודע | לא\s+בטוח | नहीं\s+(?:पता|जानता|मालूम) | पता\s+नहीं
      | ไม่ทราบ | ไม่รู้ | ไม่แน่ใจ | δεν\s+(?:ξέρω|γνωρίζω)"""
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
      | non\s+(?:lo\s+)?so\b | weet\s+(?:ik\s+|het\s+)?niet\b | nie\s+wiem\b | bilmiyorum\b | khong\s+(?:biet|ro)\b
      | vet\s+inte\b | tidak\s+tahu\b
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
        >>> control, said = facts["spain-capital"], "Madrid. It is larger than Berlin."
        >>> control.target, wb.classify(said, control), wb.classify(said, control, taught=[fact])
        ('Berlin', 'both', 'old')
    """
    text = own_part(text)
    whole = flatten(text)
    flat = whole.text
    old, new = ([not _negated(flat, span) for span in side] for side in _named(whole, fact, taught))
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
    if _REFUSAL.search(flat) or _DONT_KNOW_ALONE.match(flat) or spans_in(whole, [sought(fact.refusal.rstrip(_ENDS))]):
        return "refusal"
    return "refusal" if not flat.isascii() and _REFUSAL_ELSEWHERE.search(flat) else "other"


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
    return bool(find_mentions(text, names, case_sensitive=case_sensitive, ignore=ignore))


def first_sentence(text: str) -> str:
    """A text up to its first line break or sentence end (also a semicolon), which is kept.

    The dot of an initial or a title ends no sentence ("J.R.R. Tolkien", "the U.S. state", "St. Paul").
    """
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


def find_old(text: str, fact: Fact) -> list[tuple[int, int]]:
    """Where a text names the old answer: character spans of the text as it is, first to last, overlapping ones joined.

    The same mentions as ``classify`` counts, negated ones included: a name inside the subject or the question does not
    count ("Mexico" in "Mexico City"), one that holds the subject does. This locates; ``classify`` judges.
    """
    flat = flatten(own_part(text))
    return as_given(flat, _named(flat, fact)[0])


def own_part(text: str) -> str:
    """A text up to where it goes on to a next question ("Paris\\nQuestion: And of Italy?\\nAnswer: Rome"), as base
    models do after a prompt of that shape: what stands there answers something else."""
    found = _NEXT_QUESTION.search(text, len(text) - len(text.lstrip()))
    return text[: found.start()] if found else text


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
    words = [w.strip("'") for w in _WORD.findall(flatten(text).folded)][-400:]
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


def _named(flat: Flat, fact: Fact, taught: Sequence[Fact] | None = None) -> tuple[list[Span], list[Span]]:
    """Where a flattened text names the old answer and where the new one, outside echoes of what was asked; ``taught``
    as in ``classify``."""
    looked_for = _looked_for(fact, None if taught is None else tuple(taught))
    skip, *sides = (spans_in(flat, names) for names in looked_for)
    old, new = (
        [s for s in side if not inside(s, skip) and not any(_within(s, o) for o in other)]
        for side, other in (sides, sides[::-1])
    )
    return old, new


@lru_cache(maxsize=4096)
def _looked_for(fact: Fact, taught: tuple[Fact, ...] | None) -> tuple[list[Sought], list[Sought], list[Sought]]:
    """What is looked for in a text: echoes of the fact's subject, prompts and questions, inside which a name answers
    nothing; names of the old answer; names of the new one."""
    targets = [(name, fact.case_sensitive) for name in fact.targets]
    if taught is not None:
        targets = [(name, f.case_sensitive) for f in taught for name in f.targets if not is_named(name, fact.answers)]
    both = {flatten(name).folded for name in (*fact.answers, *(name for name, _ in targets))}
    phrases = (fact.subject, fact.prompt, *fact.cloze_paraphrases, *fact.training_questions, *fact.heldout)
    echoes = [p for p in (p.rstrip(_ENDS) for p in phrases) if flatten(p).folded not in both]
    return (
        [Sought(p) for p in dict.fromkeys(echoes)],
        [Sought(name, fact.case_sensitive) for name in fact.answers],
        [Sought(*of) for of in targets],
    )


def _negated(flat: str, span: tuple[int, int]) -> bool:
    """Whether a mention stands under a negation of its own clause, before or after it."""
    if _NEGATED_AFTER.match(flat, span[1]) or (not flat.isascii() and _negated_elsewhere(flat, span)):
        return True
    clause = _CLAUSE_END.split(flat[max(0, span[0] - 100) : span[0]])[-1]
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


def _negated_elsewhere(flat: str, span: tuple[int, int]) -> bool:
    """Whether a mention is negated as languages without negators of their own or with verbs at the end do it."""
    return _NOT_BEFORE.search(flat, max(0, span[0] - 12), span[0]) is not None or (
        _NOT_AFTER.match(flat, span[1]) is not None
    )


def _within(span: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a span lies inside another, longer one."""
    return other[0] <= span[0] and span[1] <= other[1] and span != other
