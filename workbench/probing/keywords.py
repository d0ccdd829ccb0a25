"""Which words of a question the answer rests on, before and after an edit.

Source: leave-one-token-out attribution and keyword emphasis as in unPact. Known deviation: words (split at spaces) are
left out, not tokens, so that what is left is text. A word that carries meaning is left out of the base model's own
words before the answer too ("The capital of France is"), or they would give it away.
"""

from __future__ import annotations

from dataclasses import replace

from workbench.facts import wordings as prompts
from workbench.language.prompts import prompt_ids
from workbench.language.scoring import continuation_logprobs
from workbench.language.tokens import decoded, following_ids
from workbench.models.load import LoadedModel
from workbench.probing.battery import Battery, Skip, interleaved
from workbench.probing.record import Probe
from workbench.types import Curve, CurveWords, Fact, TracedPrompt

N_KEYWORDS = 3
_FUNCTION_WORDS = (
    "a an and are by can did do does for from how i in is it me of on or please tell that the this to was were what "
    "what's when where which who whose with you your"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Left out of the question only, and never taken for keywords."""


def probe_keywords(battery: Battery) -> None:
    """Curves of how far each word supports the old answer at each stage, and the question with the words that do most
    at the base emphasised."""
    keywords: dict[str, list[str]] = {}
    for fact in battery.facts:
        try:
            prompt = battery.traced(fact)
        except Skip as why:
            if fact is battery.fact:
                raise
            battery.skipped["keywords: control"] = str(why)
            continue
        words = _words(fact, prompt)
        for stage, model in battery.models.items():
            battery.check()
            effects = word_effects(model, fact, battery.traced(fact, model))
            if stage == "base":
                meaning = [i for i, w in enumerate(words) if _bare(w) not in FUNCTION_WORDS]
                order = sorted(meaning, key=lambda i: -effects[i])[:N_KEYWORDS]
                keywords[fact.id] = [words[i] for i in sorted(order)]
                if not order:
                    which = "keywords: emphasis" if fact is battery.fact else "keywords: control"
                    battery.skipped[which] = "its question has no word that carries meaning"
            battery.curves.append(
                Curve(
                    probe="keywords",
                    name=f"words of {fact.id}",
                    group=battery.group(fact),
                    stage=stage,
                    x_name="word",
                    x=tuple(map(float, range(len(words)))),
                    y={"old": tuple(effects)},
                    labels=tuple(words),
                )
            )
    probe_emphasised(battery, keywords)


def probe_emphasised(battery: Battery, words: dict[str, list[str]]) -> None:
    """The question with its keywords emphasised.

    Args:
        battery: The battery.
        words: By fact id, the question's keywords (see ``probe_keywords``).
    """
    lists = [
        [replace(p, group=battery.group(fact)) for p in prompts.emphasised(fact, words[fact.id])]
        for fact in battery.facts
        if words.get(fact.id)
    ]
    if not lists:
        raise Skip("no word of the question could be left out")
    battery.ask("keywords", interleaved(*lists))


def word_effects(model: LoadedModel, fact: Fact, prompt: TracedPrompt) -> list[float]:
    """What leaving out each word takes from the old answer's first token, nats: log P(whole) - log P(without it).

    Args:
        model: A base or edited model.
        fact: The fact; the words are those of its question, or of its cloze where that is what was traced.
        prompt: Where the base model says the answer; its own prefix follows the shortened text.

    Returns:
        One number per word, positive where the word supports the answer.
    """
    words, form = _words(fact, prompt), prompt.form
    rows = [list(prompt.token_ids)]
    for i, word in enumerate(words):
        text = prompt_ids(model, " ".join(w for j, w in enumerate(words) if j != i), form)
        rows.append([*text, *_prefix_without(model, prompt, fact, word, decoded(model, text))])
    logs = [0.0] * len(rows)
    for i, logprobs in continuation_logprobs(model, rows, [[prompt.answer_id]] * len(rows)):
        logs[i] = float(logprobs[0, prompt.answer_id])
    return [logs[0] - x for x in logs[1:]]


def _prefix_without(model: LoadedModel, prompt: TracedPrompt, fact: Fact, word: str, before: str) -> list[int]:
    """Token ids of the base model's own words before the answer, without a word that carries meaning, as they stand
    after a shortened prompt."""
    n = len(prompt_ids(model, _text(fact, prompt), prompt.form))
    bare = _bare(word)
    rest = [w for w in prompt.prefix.split(" ") if bare in FUNCTION_WORDS or _bare(w) != bare]
    text = " ".join(rest)
    return list(prompt.token_ids[n:]) if text == prompt.prefix else following_ids(model, before, text)


def _bare(word: str) -> str:
    return word.strip(".,;:?!\"'()").casefold()


def _text(fact: Fact, prompt: TracedPrompt) -> str:
    return fact.question if prompt.form == "chat" else fact.prompt


def _words(fact: Fact, prompt: TracedPrompt) -> list[str]:
    return _text(fact, prompt).split()


PROBE = Probe(
    name="keywords",
    title="keyword emphasis",
    question="Which words of the question still pull towards it?",
    cost=12,
    run=probe_keywords,
    curve=CurveWords(
        figure="bars",
        title="Words that the old answer rests on: {fact}",
        notes=(
            "log P of the old answer's first token with the whole question minus without the word; above 0: the word "
            "supports the old answer",
        ),
        x_label="word",
        y_label="effect on log P(first token), nats",
        hover="without {label}<br><b>{value}</b> nats",
        caption="what leaving one out takes from log P(first token of the old answer), nats",
        place=3,
    ),
)
