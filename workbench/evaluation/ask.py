"""One question to a model, answered as it is."""

from __future__ import annotations

from workbench.language.generation import MAX_NEW_TOKENS, generate
from workbench.language.prompts import prompt_ids
from workbench.language.replies import counted_text, warn_of_thoughts
from workbench.models.load import LoadedModel
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def ask(model: LoadedModel, question: str, *, max_new_tokens: int = MAX_NEW_TOKENS) -> str:
    """Ask the model a question in chat form, and return its greedy answer.

    Args:
        model: A base or edited model; it is not changed.
        question: The question, as a user would type it.
        max_new_tokens: Tokens of the answer at most.

    Returns:
        The answer as text, without the prompt and without a thought before it. Of a reply that ends inside a thought
        all is returned, with a warning: it answers nothing.

    Raises:
        ValueError: The question is longer than the model can read.

    Example:
        >>> wb.ask(model, "What is the capital of France?")
        'Paris'
    """
    text = generate(model, [prompt_ids(model, question, "chat")], max_new_tokens=max_new_tokens)[0].text
    counted = counted_text(model.base, text, "chat")
    warn_of_thoughts(model, int(counted is None), 1)
    return text if counted is None else counted
