"""TransformerLens' own activation cache of a fact's traced text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from workbench.language.contrasts import clean_run
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.tracing.bridge_runs import FwdHook, bridge_of, check_name, checked_hooks, run_of
from workbench.tracing.next_tokens import readable_ids
from workbench.types import Contrast, Fact, Form
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def cache(
    model: LoadedModel,
    fact: Fact | Contrast | str,
    names: str | Sequence[str] | Callable[[str], bool] | None,
    *,
    form: Form | None = None,
    fwd_hooks: Sequence[FwdHook] = (),
) -> Any:
    """Read a fact's traced text, a contrast's clean run, or any text, into TransformerLens' ``ActivationCache``.

    Args:
        model: A base or edited model; it is not changed. Gates and deltas of an edited one are applied: they are part
            of its bridge's weights, so that ``cache["blocks.0.attn.hook_z"]`` is before the gates of its heads and
            ``cache["blocks.0.hook_attn_out"]`` after them.
        fact: A fact, whose text is the base model's own up to the answer; a contrast, whose clean run is read (for the
            corrupted one give its text); or a text.
        names: Which activations: a hook's name, several, or a function that is true of them. None keeps all, which are
            some fifty a layer.
        form: Of a fact as in ``causal_trace``; of a text ``"chat"`` (the default) or ``"cloze"``.
        fwd_hooks: Hooks of your own, part of the run, as in ``causal_trace``.

    Returns:
        TransformerLens' ``ActivationCache``; each value is [1, position, ...].

    Raises:
        ValueError: A name that the bridge does not have (with near ones), no bridge for this model, an empty text, or
            as ``traced_prompt``.

    Example:
        >>> activations = wb.cache(model, fact, ["blocks.1.attn.hook_z", "blocks.1.hook_mlp_out"], form="cloze")
        >>> type(activations).__name__, tuple(activations["blocks.1.attn.hook_z"].shape)
        ('ActivationCache', (1, 5, 6, 8))
        >>> head = wb.Component.parse("L1H3")
        >>> activations[head.hook_name][0, -1, head.index].shape
        torch.Size([8])
    """
    bridge = bridge_of(model)
    hooks, first = checked_hooks(bridge, fwd_hooks), list[FwdHook]()
    if isinstance(fact, str):
        ids = torch.tensor([readable_ids(model.base, fact, "chat" if form is None else form)])
    elif isinstance(fact, Contrast):
        ids, first = run_of(*clean_run(model, fact, form, sequences=True))
    else:
        ids = torch.tensor([traced_prompt(model, fact, form=form, needs_subject=False).token_ids])
    kept: Any = names
    if isinstance(names, str) or (names is not None and not callable(names)):
        wanted = [names] if isinstance(names, str) else list(names)
        if not wanted:
            raise ValueError("names= is an empty list: there is nothing to keep. Give hook names, or None for all.")
        for name in wanted:
            check_name(bridge.hook_dict, name)
        kept = set(wanted).__contains__
    with torch.no_grad(), bridge.hooks(fwd_hooks=[*first, *hooks]):
        _, activations = bridge.run_with_cache(ids.to(model.device), names_filter=kept)
    return activations
