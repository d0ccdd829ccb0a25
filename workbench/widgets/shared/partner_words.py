"""How a swap is put into words: whose subject is swapped in, and at how many places."""

from __future__ import annotations

from workbench.facts.known import load_facts
from workbench.types import Fact, FactSet, TracedPrompt


def partner_subject(prompt: TracedPrompt, partner: Fact | None, pool: FactSet | None) -> str:
    """The subject that a map was made with; its fact's id where that fact is not at hand, empty without a swap.

    Args:
        prompt: The map's text, which names the fact.
        partner: The fact that was given to swap in, if one was.
        pool: Else where it came from; None for the bundled facts.
    """
    if prompt.partner is None:
        return ""
    if partner is not None and partner.id == prompt.partner:
        return partner.subject
    facts = load_facts() if pool is None else pool
    return facts[prompt.partner].subject if prompt.partner in facts else prompt.partner


def places(prompt: TracedPrompt) -> int:
    """At how many places of the text the subject stands: all of them are swapped, or get noise."""
    return sum(at - 1 not in prompt.subject for at in prompt.subject)


def everywhere(prompt: TracedPrompt) -> str:
    """That a corruption is at more than one place, as the rest of a sentence; empty where it is at one."""
    n = places(prompt)
    return f", at all {n} places where it stands" if n > 1 else ""
