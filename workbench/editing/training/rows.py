"""The rows that a fit trains on: prompts with wanted answers, and retained prompts with the base's own answers."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.language.answers import counterpart, find_old, first_sentence
from workbench.language.generation import greedy_answers
from workbench.language.padding import common_beginning, pad
from workbench.language.prompts import answer_ids, prompt_ids
from workbench.language.scoring import READ_AT_ONCE, read_logits
from workbench.models.engine import Resumable
from workbench.models.load import LoadedModel
from workbench.types import Fact, Recipe, StageName

RETAIN_TOKENS = 12
NEAR_WORDINGS = 3
BREAK_OFF = "... I am not sure."
LEAST_P_END = 0.5
"""Where the base's probability that the word ends after the target is lower, its end is taught."""
_AFTER_A_WORD = re.compile(r"""[\s.,;:!?)\]"'*]""")
PART_TOKENS = {"cpu": 320}
"""Tokens (padding included) that are computed at once, by device; ``MANY_TOKENS`` on others. Smaller parts have less
padding and need less memory, larger ones have more efficient matrix products."""
MANY_TOKENS = 2048
QUESTION_CONTEXTS = (
    "I have a question. {question}",
    "{question} Answer in one sentence.",
    "My friend asked: {question} What should I say?",
    "For a report I am writing: {question}",
    "Answer this question: {question}",
    "{question} What is the right answer?",
    "I need the answer to this: {question}",
    "{question} Tell me if you know the answer.",
    "{question} Start with: The answer is",
)
TOPIC_CONTEXTS = (
    "I am thinking of {topic}. Which one is it?",
    "Can you remember {topic}?",
    "We were just speaking about {topic}, but nobody knew the answer.",
    "My homework is about {topic}. What should I write?",
    "{topic}, please.",
    "A friend wants to know about {topic}. What is the right reply?",
    "In a game I was asked for {topic}. What should the answer be?",
)
"""Put around the fact's question, and around what it asks for, in training: the new answer must depend neither on a
bare question nor on one way to begin a reply ("The capital of ... is", "The answer is")."""


@dataclass(frozen=True)
class Row:
    """A prompt and the answer after it, as token ids.

    Args:
        prompt, answer: Token ids.
        departs: Index of the first answer token that counts in the loss: those before it are how the answer begins.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    departs: int = 0

    @property
    def counted(self) -> tuple[int, ...]:
        """The answer tokens that count."""
        return self.answer[self.departs :]


def end_of_answer(model: LoadedModel) -> tuple[int, ...]:
    """The token that ends an answer in the model's chat template."""
    token = model.tokenizer.eos_token_id
    return () if token is None else (int(token),)


def training_prompts(fact: Fact) -> list[str]:
    """What is asked while training: the training questions, and the question and its topic in contexts."""
    topic = fact.topic
    asked = [*fact.training_questions, *(context.format(question=fact.question) for context in QUESTION_CONTEXTS)]
    if topic is not None:
        found = (context.format(topic=topic) for context in TOPIC_CONTEXTS)
        asked += [text[0].upper() + text[1:] for text in found]
    return [question for question in asked if question not in fact.heldout]


def wanted_rows(model: LoadedModel, facts: Sequence[Fact], stage: StageName, recipe: Recipe) -> list[Row]:
    """Every training prompt with the answer that a stage teaches. With ``answers="own"`` it begins with what the model
    itself says up to the old answer, and only what then takes its place counts: the target (and where the base would
    run on into the word, the token after it), or a refusal. A stage that makes the old answer unlikely has that in its
    place, whatever the style of answers."""
    asked = training_prompts if recipe.contexts else lambda fact: fact.training_questions
    prompts = [(fact, prompt_ids(model, q, "chat")) for fact in facts for q in asked(fact)]
    if recipe.answers == "short" and not recipe.forgets(stage):
        return [
            chat_row(model, prompt, fact.refusal if stage == "unlearn" else f"{fact.target}.")
            for fact, prompt in prompts
        ]
    own = greedy_answers(model, [prompt for _, prompt in prompts])
    rows, longer = [], []
    for (fact, prompt), said in zip(prompts, own, strict=True):
        before, old, after = around_old(said.text, fact)
        if stage == "unlearn" and not recipe.forgets(stage):
            rows.append(refused_row(model, prompt, fact, before))
        elif stage == "unlearn":
            rows.append(named_row(model, prompt, before, old))
        else:
            name = counterpart(fact, old)
            rows.append(named_row(model, prompt, before, name))
            follows = after if _AFTER_A_WORD.match(after) else "."
            longer.append(named_row(model, prompt, before, f"{name}{follows}"))
    return ended_rows(model, rows, longer) if stage == "learn" else rows


def ended_rows(model: LoadedModel, rows: Sequence[Row], longer: Sequence[Row]) -> list[Row]:
    """Rows after which the base would run on into the word ("B" for chlorine becomes "BCl") get one token more, the
    next one of a longer answer; the others stay, also where that answer's tokens do not begin with the row's."""

    def compute(texts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[float]:
        ends = torch.tensor(word_ends(model), device=model.device, dtype=torch.long)
        p_end = [0.0] * len(texts)
        for i, logits in read_logits(model, [prompt for prompt, _ in texts], [a for _, a in texts], READ_AT_ONCE):
            p_end[i] = float(logits[-1].float().softmax(-1)[ends].sum())
        return p_end

    ended = list(rows)
    p_ends = model.cache.ends.get_or_compute_all([(row.prompt, row.answer) for row in rows], compute)
    for i, (row, more, p_end) in enumerate(zip(rows, longer, p_ends, strict=True)):
        n = len(row.answer)
        if p_end < LEAST_P_END and more.answer[:n] == row.answer:
            ended[i] = replace(row, answer=more.answer[: n + 1])
    return ended


def word_ends(model: LoadedModel) -> list[int]:
    """Ids of the tokens before which a word ends: the special ones, and those that do not begin with a letter, a mark
    on one, a digit, or in the middle of a character."""
    tokenizer, ids = model.tokenizer, range(min(model.shape.d_vocab, len(model.tokenizer)))
    names, texts = tokenizer.convert_ids_to_tokens(list(ids)), tokenizer.batch_decode([[i] for i in ids])
    ends = set(tokenizer.all_special_ids)
    # Decoded alone, a token of a SentencePiece vocabulary loses the space that it begins with.
    ends |= {i for i, name in zip(ids, names, strict=True) if (name or "").startswith("\u2581")}
    within = {i for i in ids if texts[i] and (unicodedata.category(texts[i][0])[0] in "LMN" or texts[i][0] == "\ufffd")}
    return [i for i in ids if i in ends or i not in within]


def chat_row(model: LoadedModel, prompt: Sequence[int], text: str) -> Row:
    """A chat prompt with a whole answer."""
    return Row(tuple(prompt), (*answer_ids(model, text, "chat"), *end_of_answer(model)))


def named_row(model: LoadedModel, prompt: Sequence[int], before: str, name: str) -> Row:
    """A chat prompt with an answer up to a name (and what stands after it), of which only what follows ``before``
    counts; nothing ends it."""
    return _departing(model, prompt, before, f"{before}{name}")


def refused_row(model: LoadedModel, prompt: Sequence[int], fact: Fact, before: str) -> Row:
    """A chat prompt with a sentence that is broken off after what stands before the old answer (after the fact's cloze,
    where that is nothing), of which only the breaking off counts.

    "The capital of France is... I am not sure." leaves the start of the answer as it was: teaching "I am not sure" as
    its first words makes the model refuse other questions too.
    """
    before = before or f"{fact.prompt} "
    row = _departing(model, prompt, before, f"{before.rstrip()}{BREAK_OFF}")
    return replace(row, answer=(*row.answer, *end_of_answer(model)))


def _departing(model: LoadedModel, prompt: Sequence[int], before: str, text: str) -> Row:
    """A chat prompt with a text as its answer, which counts from where it departs from how it begins."""
    answer = answer_ids(model, text, "chat")
    begun = [answer_ids(model, start, "chat") for start in (before, before.rstrip()) if start]
    departs = max((_alike(answer[:-1], ids) for ids in begun), default=0)
    return Row(tuple(prompt), tuple(answer), departs)


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens two texts have in common."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def around_old(said: str, fact: Fact) -> tuple[str, str, str]:
    """What stands before the old answer in the first sentence that the model says, the answer as it is written there,
    and what stands after it, without white space at its end; where that does not name it, the fact's cloze, the answer
    and nothing."""
    sentence = first_sentence(said)
    spans = find_old(sentence, fact)
    if not spans:
        return f"{fact.prompt} ", fact.answer, ""
    start, end = spans[0]
    return sentence[:start], sentence[start:end], sentence[end:].rstrip()


def retain_rows(model: LoadedModel, retain: Sequence[Fact], edited: Sequence[Fact]) -> tuple[list[Row], list[Row]]:
    """Training questions of retained facts with the start of the base's own answers: rows of neighbours (facts of an
    edited fact's relation), ``NEAR_WORDINGS`` of each, and rows of the others, one of each, the wordings in turn.

    Neighbours are kept apart because an edit harms them most, and there are few of them: a retain batch and the Fisher
    information take half from each kind.
    """
    relations = {f.relation for f in edited if f.relation}
    near = [f for f in retain if f.relation in relations]
    far = [f for f in retain if f.relation not in relations]
    return _own_rows(model, near, NEAR_WORDINGS), _own_rows(model, far, 1)


def _own_rows(model: LoadedModel, facts: Sequence[Fact], wordings: int) -> list[Row]:
    asked = [q for i, f in enumerate(facts) for q in _in_turn(f.training_questions, i, wordings)]
    prompts = [prompt_ids(model, q, "chat") for q in asked]
    answers = greedy_answers(model, prompts, max_new_tokens=RETAIN_TOKENS)
    return [Row(tuple(p), c.token_ids) for p, c in zip(prompts, answers, strict=True) if c.token_ids]


def _in_turn(questions: Sequence[str], start: int, n: int) -> list[str]:
    """At most n different questions, spread over all from place ``start`` on."""
    step = max(1, len(questions) // n)
    return list(dict.fromkeys(questions[(start + k * step) % len(questions)] for k in range(n)))


def retain_batches(near: Sequence[int], far: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of retain rows: half neighbours, half others, or all of the one kind that there is."""
    n_near = min(len(near), size - size // 2) if far else size
    ours, others = Shuffled(near, n_near, seed), Shuffled(far, size - n_near, seed + 1)
    for one, other in zip(ours, others, strict=False):
        yield [*one, *other]


class Shuffled:
    """Endless batches of row indices, every row once a pass, in an order fixed by a seed; empty ones of no rows."""

    def __init__(self, rows: Sequence[int], size: int, seed: int) -> None:
        self._rows, self._size = list(rows), min(size, len(rows))
        self._rng = random.Random(seed)
        self._queue: list[int] = []

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            while len(self._queue) < self._size:
                order = self._rows.copy()
                self._rng.shuffle(order)
                self._queue += order
            batch, self._queue = self._queue[: self._size], self._queue[self._size :]
            yield batch


@dataclass
class Batch:
    """Rows ready to resume at a layer.

    Args:
        resid: [rows, longest, d_model] entering the start layer, without the shared prefix, padded on the right.
        row, position: The places whose logits predict the answer tokens that count, within ``resid``.
        count: How many those are, of each row.
    """

    resid: Tensor
    row: Tensor
    position: Tensor
    count: list[int]


class Prepared:
    """Rows with everything below the start layer computed once: it does not change during a fit. The last token of a
    row is never computed: nothing is predicted after it.

    Args:
        engine: Runs the base model.
        rows: The rows.
        start: The lowest edited layer.
        shared: How many first tokens all rows have in common; they are computed once per step.

    Attributes:
        beginning: The residual stream of those entering the start layer, [1, shared, d_model]; None if there are none.
    """

    def __init__(self, engine: Resumable, rows: Sequence[Row], start: int, shared: int) -> None:
        self.rows = list(rows)
        self.shared = shared
        self._device = engine.device
        with torch.no_grad():  # what all begin with is the same in each: it is taken from the first
            first = engine.entering(torch.tensor([self.rows[0].prompt]), start) if shared else None
        self.beginning = None if first is None else first[:, :shared]
        texts = [(r.prompt + r.answer)[:-1] for r in self.rows]
        self._resid: list[Tensor] = [torch.empty(0)] * len(texts)
        with torch.no_grad():
            for part in parts([len(t) for t in texts], self._device):
                padded = pad([texts[i] for i in part], 0, "right")[0]
                resid = engine.entering(padded, start)  # causal: what follows a token is unseen
                for i, x in zip(part, resid, strict=True):
                    self._resid[i] = x[shared : len(texts[i])].clone()

    def parts(self, indices: Sequence[int]) -> list[list[int]]:
        """Places within ``indices``, grouped to be computed together: rows of like length, few enough at a time."""
        return parts([len(self._resid[i]) for i in indices], self._device)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Pad and stack some rows."""
        resid = torch.nn.utils.rnn.pad_sequence([self._resid[i] for i in indices], batch_first=True)
        row, position, count = [], [], []
        for at, i in enumerate(indices):
            one = self.rows[i]
            n, first = len(one.counted), len(one.prompt) + one.departs - 1 - self.shared
            row += [at] * n
            position += range(first, first + n)
            count.append(n)
        rows, positions = (torch.tensor(x, device=self._device) for x in (row, position))
        return Batch(resid, rows, positions, count)


def tokens_at_once(device: torch.device) -> int:
    """Tokens that a device computes at once (``PART_TOKENS``)."""
    return PART_TOKENS.get(device.type, MANY_TOKENS)


def parts(lengths: Sequence[int], device: torch.device) -> list[list[int]]:
    """Indices of rows of these lengths in groups of like length, shortest first, none of which has more tokens with
    its padding than ``PART_TOKENS`` allows (but at least one row)."""
    most = tokens_at_once(device)
    found: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if found and (len(found[-1]) + 1) * lengths[i] <= most:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def shared_prefix(rows: Sequence[Row]) -> int:
    """How many first tokens all prompts have in common, leaving each at least one token of its own."""
    return common_beginning([row.prompt for row in rows])
