"""A model's chat template: questions through it, with the model's own options, and how it writes a turn.

Everything about a template is found by rendering it and looking: what it writes before a reply, what ends one, whether
a reply would begin inside a thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.language.tokens import decoded
from workbench.models.load import LoadedModel
from workbench.models.template_options import SYSTEM, THINKING, effective, knows

PLAIN_TEMPLATE = "Question: {question}\nAnswer:"
"""What stands in for a chat template where the tokenizer has none (GPT-2, say)."""
THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
)
"""What opens a thought, and what closes it, in the replies of reasoning models."""
_ASKED, _REPLIED, _NEXT = "qxzaska", "qxzreply", "qxzaskb"
"""Texts of an exchange that stand in no template."""


def chat_text(model: LoadedModel, question: str, system: str | None = None) -> str:
    """A question through the model's chat template, ready for the answer: with the header that the template writes
    before each reply (`Turn.header`) where it leaves that to the model.

    Args:
        model: The model, whose ``template`` options hold; thoughts are turned off where the template knows
            ``enable_thinking`` and the options do not say otherwise.
        question: The user's message.
        system: A system prompt; None for the one of the model's options, or else the template's default.

    Raises:
        ValueError: The template refuses the conversation, or leaves the system prompt out.
    """
    system = model.template.get(SYSTEM) if system is None else system
    if model.chat_template is None:
        return (f"{system}\n\n" if system else "") + PLAIN_TEMPLATE.format(question=question)
    text = _rendered(model, [_message("user", question)], system, reply=True) + turn(model).header
    if system and system.strip() not in text:
        raise ValueError(
            f"The chat template of {model.name!r} leaves out the system prompt {system!r}: it knows none. Put it into "
            "the question, or leave system out."
        )
    return text


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _rendered(model: LoadedModel, messages: Sequence[dict[str, str]], system: str | None, *, reply: bool) -> str:
    """Messages through the chat template.

    Args:
        model: The model.
        messages: The conversation but for the system prompt.
        system: The system prompt, or None.
        reply: Whether a reply of the model is to follow.
    """
    from jinja2 import TemplateError, TemplateSyntaxError

    options = {name: value for name, value in effective(model.template, model.chat_template).items() if name != SYSTEM}
    before = [_message("system", system)] if system else []
    try:
        return model.tokenizer.apply_chat_template(
            [*before, *messages], tokenize=False, add_generation_prompt=reply, **options
        )
    except TemplateSyntaxError as error:
        raise ValueError(
            f"The chat template of {model.name!r} is broken (line {error.lineno}: {error.message}). Give the tokenizer "
            "another chat_template."
        ) from error
    except TemplateError as error:
        roles = ", ".join(m["role"] for m in (*before, *messages))
        raise ValueError(
            f"The chat template of {model.name!r} refuses a conversation of {roles}: {error}. Leave out what it does "
            "not know (a system prompt, say), or give the tokenizer another chat_template."
        ) from error


@dataclass(frozen=True)
class Turn:
    """What a template writes around a reply.

    Args:
        start: Between a prompt that is ready for a reply and the reply: a space, or nothing.
        end: Between a reply and the next message of the user: its first special token, or its text, ends the reply.
        header: What a finished reply begins with and a prompt that is ready for one leaves out: GPT-OSS' ``final``
            channel, Command A's ``<|START_RESPONSE|>``.
    """

    start: str = ""
    end: str = ""
    header: str = ""


def turn(model: LoadedModel) -> Turn:
    """Render an exchange and look what stands around the reply; nothing where the template refuses one."""
    if model.chat_template is None:
        return Turn(" ", "\n")
    system = model.template.get(SYSTEM)
    asked, replied, after = _message("user", _ASKED), _message("assistant", _REPLIED), _message("user", _NEXT)
    try:
        whole = _rendered(model, [asked, replied, after], system, reply=False)
        ready = _rendered(model, [asked], system, reply=True)
    except ValueError:
        return Turn()
    begins, ends = whole.find(_REPLIED), whole.find(_NEXT)
    if not 0 <= begins < ends:
        return Turn()
    start = whole[len(ready) : begins] if whole.startswith(ready) else ""
    end = whole[begins + len(_REPLIED) : ends]
    if not start.strip():
        return Turn(start, end)
    thought = any(opening in start for opening, _ in THOUGHTS)  # an empty one: not where thoughts are asked for
    return Turn("", end, header="" if thought and model.template.get(THINKING) else start)


def turn_stops(model: LoadedModel) -> tuple[int | str, ...]:
    """What ends a reply, as the template writes it: the special token after one, or the text before that token (or in
    its place). A plain-text reply ends with its line."""
    end = turn(model).end
    if model.chat_template is None:
        return (end,)
    ids = model.token_ids(end)
    marks = {*model.tokenizer.all_special_ids, *getattr(model.tokenizer, "added_tokens_decoder", {})}
    at = next((i for i, token in enumerate(ids) if token in marks), None)
    text = (end if at is None else decoded(model, ids[:at])).rstrip()
    return (*(() if at is None else (ids[at],)), *((text,) if text.strip() else ()))


def opens_thought(model: LoadedModel) -> bool:
    """Whether a reply in chat form begins inside a thought: the rendered prompt opens one and leaves it open."""
    if model.chat_template is None:
        return False
    text = chat_text(model, _ASKED)
    ready = text[text.rfind(_ASKED) :]
    return any(ready.rfind(opening) > ready.rfind(closing) for opening, closing in THOUGHTS)


def check_no_thought(model: LoadedModel) -> None:
    """Raise a ValueError for a model whose every reply in chat form begins inside a thought, so that an answer cannot
    be taught as the beginning of one."""
    if opens_thought(model):
        ready = chat_text(model, _ASKED).rsplit(_ASKED, 1)[1]
        raise ValueError(
            f"The chat template of {model.name!r} opens a thought before each reply ({ready[-40:]!r}), so that an "
            "answer cannot be taught there. "
            + (
                f"Load the model with template={{{THINKING!r}: False}}."
                if knows(model.chat_template, THINKING)
                else "Turn thoughts off by an option of the template (load_model(..., template={...})), or give the "
                "tokenizer a chat_template that closes the thought."
            )
        )


def thought_words(model: LoadedModel) -> str:
    """How to have answers in place of thoughts, as the end of a message."""
    if knows(model.chat_template, THINKING):
        return f"Load the model with template={{{THINKING!r}: False}}, or give it more tokens (max_new_tokens=)."
    return (
        "Give it more tokens (max_new_tokens=), turn thoughts off by an option of its template (load_model(..., "
        "template={...})), or give the tokenizer a chat_template that closes the thought."
    )
