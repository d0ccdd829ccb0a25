"""What the logit lens says, in the same words wherever a panel shows it."""

from __future__ import annotations

from workbench.plots.style import visible

LIKELIEST = "Likeliest token: the first of all tokens by probability, if the model ended after that layer."
LEADS = "Leads: likelier than the two other answers of old, new and refusal; the likeliest token may be another one."


def settled(token: str, settles: str | None, rank: int) -> str:
    """From which layer on a token is the likeliest at the end, in a sentence.

    Args:
        token: The token.
        settles: The first layer after which it stays the likeliest; None where it is not the likeliest at the end.
        rank: Its rank at the end, 0 for the likeliest.
    """
    if settles is None:
        return f"{visible(token)} is not the likeliest token at the end (rank {rank + 1:,})."
    return f"{visible(token)} is the likeliest token at the end from {settles} on."
