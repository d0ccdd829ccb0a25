"""The schemas of public editing data sets. Each function makes facts of one record, as ``SchemaRecord.convert``.

Fields were taken from the data sets' own files and cards. What a data set asks beside the fact (neighbours, locality,
portability) is kept as ``DataPrompt``; what a fact needs and a set lacks is stated where it is made up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from workbench.facts.datasets.fields import Fields, flat_texts
from workbench.types import Fact
from workbench.types.data_prompt import DataPrompt, DataPromptKind
from workbench.types.plain import is_list, is_mapping

_NQ = "nq question: "
_BLANK = re.compile(r"_{2,}")


def as_question(cloze: str) -> str:
    """The question form of a data set that has none."""
    return f"Complete the sentence: {cloze}"


def as_prompt(question: str) -> str:
    """The cloze form of a data set that has none."""
    return f"Question: {question} Answer:"


def _rewrite(given: Fields) -> tuple[str, str]:
    """The subject and the filled prompt of a CounterFact rewrite."""
    subject, template = given.text("subject"), given.text("prompt")
    if "{}" not in template:
        raise ValueError(f"field {given.name('prompt')!r} must hold {{}} in the subject's place, got {template!r}")
    return subject, template.replace("{}", subject).strip()


def counterfact(record: Any, _: Sequence[Any]) -> list[Fact]:
    """CounterFact; rewrites as ``{"subject", "prompt", "target_true": {"str"}, "target_new": {"str"}}``."""
    given = Fields(record)
    rewrite = given.inner("requested_rewrite")
    subject, prompt = _rewrite(rewrite)
    old, new = (rewrite.inner(name).text("str", numbers=True) for name in ("target_true", "target_new"))
    asked = [
        *_listed(given, "neighborhood_prompts", "neighbourhood", old),
        *_listed(given, "attribute_prompts", "attribute", new),
        *(DataPrompt(kind="generation", prompt=text) for text in given.texts("generation_prompts")),
    ]
    fact = Fact(
        id=f"counterfact-{given.value('case_id')}" if given.has("case_id") else "",
        subject=subject,
        relation=rewrite.text("relation_id", default=""),
        prompt=prompt,
        question=as_question(prompt),
        answer=old,
        target=new,
        cloze_paraphrases=given.texts("paraphrase_prompts"),
        data_prompts=tuple(asked),
    )
    return [fact]


def _listed(given: Fields, field: str, kind: DataPromptKind, answer: str) -> Iterator[DataPrompt]:
    """Prompts of CounterFact: texts whose answer the rewrite has, or (in some copies) objects with their own."""
    value = given.value(field)
    if is_list(value) and any(is_mapping(one) for one in value):
        for one in given.objects(field):
            yield DataPrompt(
                kind=kind, prompt=one.text("prompt"), answers=one.texts("target", numbers=True) or (answer,)
            )
        return
    for text in given.texts(field):
        yield DataPrompt(kind=kind, prompt=text, answers=(answer,))


def mquake(record: Any, _: Sequence[Any]) -> list[Fact]:
    """MQuAKE: a fact for each rewrite of a record. Its multi-hop questions need all rewrites of the record at once;
    their group says how many those are."""
    given = Fields(record)
    rewrites = given.objects("requested_rewrite")
    if not rewrites:
        raise ValueError("field 'requested_rewrite' is an empty list")
    ends = (given.text("new_answer", numbers=True), *given.texts("new_answer_alias", numbers=True))
    several = "" if len(rewrites) == 1 else f", needs all {len(rewrites)} edits of the record"
    hops = tuple(
        DataPrompt(kind="portability", prompt=question, answers=ends, group=f"multi-hop{several}")
        for question in given.texts("questions")
    )
    old, new = given.objects("single_hops"), given.objects("new_single_hops")
    facts: list[Fact] = []
    for number, rewrite in enumerate(rewrites):
        subject, prompt = _rewrite(rewrite)
        answer, target = (rewrite.inner(name).text("str", numbers=True) for name in ("target_true", "target_new"))
        facts.append(
            Fact(
                id=f"mquake-{given.value('case_id')}-{number}" if given.has("case_id") else "",
                subject=subject,
                relation=rewrite.text("relation_id", default=""),
                prompt=prompt,
                question=rewrite.text("question", default=as_question(prompt)),
                answer=answer,
                answer_aliases=_aliases(old, answer),
                target=target,
                target_aliases=_aliases(new, target),
                data_prompts=hops,
            )
        )
    return facts


def _aliases(hops: Sequence[Fields], answer: str) -> tuple[str, ...]:
    """Other forms of an answer, from the hop that has it."""
    for hop in hops:
        if hop.text("answer", default="", numbers=True) == answer:
            return tuple(alias for alias in hop.texts("answer_alias", numbers=True) if alias != answer)
    return ()


def counterfact_tracing(record: Any, _: Sequence[Any]) -> list[Fact]:
    """CounterFact as rows of text, with the space before each answer."""
    given = Fields(record)
    prompt = given.text("prompt")
    fact = Fact(
        subject=given.text("subject"),
        relation=given.text("relation_id", "relation", default=""),
        prompt=prompt,
        question=as_question(prompt),
        answer=given.text("target_true", numbers=True),
        target=given.text("target_false", numbers=True),
    )
    return [fact]


def known_1000(record: Any, records: Sequence[Any]) -> list[Fact]:
    """known_1000. The data set has no counterfactual: the target is the next other attribute of the same relation."""
    given = Fields(record)
    answer = given.text("attribute", numbers=True)
    prompt = given.text("prompt")
    relation = given.text("relation_id", default="")
    fact = Fact(
        id=f"known-{given.value('known_id')}" if given.has("known_id") else "",
        subject=given.text("subject"),
        relation=relation,
        prompt=prompt,
        question=as_question(prompt),
        answer=answer,
        target=_next_other(record, records, "attribute", "relation_id"),
    )
    return [fact]


def _next_other(record: Any, records: Sequence[Any], field: str, group: str) -> str:
    """The next other value of a field among the records of the same group, then among all."""
    own = Fields(record).text(field, numbers=True).casefold()
    at = next(i for i, one in enumerate(records) if one is record)
    others = [one for one in (*records[at + 1 :], *records[:at]) if is_mapping(one)]
    near = [one for one in others if one.get(group) == record.get(group)]
    for one in (*near, *others):
        value = one.get(field)
        if isinstance(value, str | int) and str(value).strip() and str(value).strip().casefold() != own:
            return str(value).strip()
    raise ValueError(f"no other {field} in the file could serve as a target")


def zsre(record: Any, _: Sequence[Any]) -> list[Fact]:
    """zsRE, KnowEdit and EasyEdit's variants: a question or a cloze, the target, and what else is asked."""
    given = Fields(record)
    text = given.text("src", "prompt")
    asks = given.has("src") or text.endswith("?")
    truth = next((name for name in ("answers", "ground_truth", "pred") if given.texts(name, numbers=True)), "answers")
    answers = given.texts(truth, numbers=True)
    rephrased = tuple(t for t in given.texts("rephrase", "rephrase_prompt") if t != text)
    targets = given.texts("alt", "target_new", numbers=True)
    fact = Fact(
        id=f"zsre-{given.value('case_id')}" if given.has("case_id") else "",
        subject=given.text("subject"),
        relation=given.text("relation", "relation_id", default=""),
        prompt=as_prompt(text) if asks else text,
        question=text if asks else as_question(text),
        answer=answers[0] if answers else "",
        answer_aliases=answers[1:],
        target=targets[0] if targets else "",
        target_aliases=targets[1:],
        heldout=rephrased if asks else tuple(as_question(t) for t in rephrased),
        cloze_paraphrases=() if asks else rephrased,
        data_prompts=tuple(_beside(given)),
    )
    return [fact]


def _beside(given: Fields) -> Iterator[DataPrompt]:
    """What zsRE, KnowEdit and EasyEdit ask beside the fact, in the ways in which their files write it."""
    if given.has("loc"):
        answers = given.texts("loc_ans", numbers=True)
        yield DataPrompt(kind="locality", prompt=given.text("loc").removeprefix(_NQ), answers=answers, group="loc")
    kinds: tuple[DataPromptKind, DataPromptKind] = ("locality", "portability")
    for kind in kinds:
        if given.has(f"{kind}_prompt"):
            yield from _paired(given, kind, f"{kind}_prompt", f"{kind}_ground_truth", "")
        for name in (kind, f"{kind}_inputs"):
            if given.has(name):
                yield from _groups(given.inner(name), kind)


def _groups(given: Fields, kind: DataPromptKind) -> Iterator[DataPrompt]:
    """Prompts by the data set's own groups: lists of objects, objects of lists, or (zsRE's portability) one pair."""
    if given.has("New Question"):
        answers = given.texts("New Answer", numbers=True)
        yield DataPrompt(kind=kind, prompt=given.text("New Question"), answers=answers, group="Reasoning")
        return
    for group in given.groups():
        value = given.value(group)
        if is_mapping(value):
            yield from _paired(given.inner(group), kind, "prompt", "ground_truth", group)
        else:
            for one in given.objects(group):
                answers = one.texts("ground_truth", "target", numbers=True)
                yield DataPrompt(kind=kind, prompt=one.text("prompt"), answers=answers, group=group)


def _paired(given: Fields, kind: DataPromptKind, prompt: str, truth: str, group: str) -> Iterator[DataPrompt]:
    """A prompt and its answers, or as many of the one as of the other."""
    prompts, truths = given.value(prompt), given.value(truth)
    if not is_list(prompts):
        prompts, truths = [prompts], [truths]
    if not is_list(truths) or len(truths) != len(prompts):
        raise ValueError(f"field {given.name(truth)!r} must hold an answer for each of {len(prompts)} prompts")
    for i, (text, answers) in enumerate(zip(prompts, truths, strict=True)):
        (asked,) = flat_texts(text, f"{given.name(prompt)}[{i}]") or [""]
        found = [] if answers is None else flat_texts(answers, f"{given.name(truth)}[{i}]", numbers=True)
        yield DataPrompt(kind=kind, prompt=asked, answers=tuple(found), group=group)


def rwku(record: Any, records: Sequence[Any]) -> list[Fact]:
    """RWKU: clozes with a blank (level 1; what stands before the blank is the prompt), and questions. The benchmark
    unlearns and teaches nothing: the target is the next other answer of the same level."""
    given = Fields(record)
    query = given.text("query")
    before = _BLANK.split(query)[0].strip()
    blank = _BLANK.search(query) is not None
    if blank and not before:
        raise ValueError(f"field 'query' begins with the blank, so nothing stands before the answer: {query!r}")
    fact = Fact(
        subject=given.text("subject"),
        relation="",
        prompt=before if blank else as_prompt(query),
        question=f"Fill in the blank: {query}" if blank else query,
        answer=given.text("answer", numbers=True),
        target=_next_other(record, records, "answer", "level"),
    )
    return [fact]
