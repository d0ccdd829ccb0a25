"""Which consecutive layers a closed form writes: those whose MLPs, restored at the subject, bring most back.

It is the causal trace of the site "mlp" for the cells that count here alone, the subject's last tokens, which takes a
fraction of the time of a whole map. Windows with layer 0 are left out: its MLP reads little but the token, so that
restoring it undoes the noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.facts.known import load_facts
from workbench.language.prompts import AnswerNotSaid
from workbench.models.engine import Change, HookSite, Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.corruption import set_up
from workbench.tracing.self_check import require
from workbench.tracing.setup import SetupOptions
from workbench.types import Fact
from workbench.types.covariance import OutputModule

TRACED_FACTS = 3
USUAL_DEPTH = 7 / 30
"""Where the middle of the window lies in a model that does not say the facts' answers, so that no trace can be made:
as a share of the depth."""


def traced_window(
    model: LoadedModel, facts: Sequence[Fact], window: int, module: OutputModule = "mlp", *, samples: int = 3
) -> tuple[int, str]:
    """The first of the consecutive layers whose modules restore most of the answer at the subject's last tokens.

    Args:
        model: The base model.
        facts: The first few that the model answers are traced.
        window: How many layers.
        module: MLPs or attention.
        samples: Noise samples.

    Returns:
        The layer, and how it was chosen. A window at the usual depth, where the model says no fact's answer.
    """
    found: list[Tensor] = []
    for fact in facts[:TRACED_FACTS]:
        try:
            found.append(restored_by_window(model, fact, window, module, samples=samples))
        except AnswerNotSaid:
            continue
    n = model.shape.n_layers
    if not found:
        first = max(0, min(n - window, round(USUAL_DEPTH * n) - window // 2))
        return first, "the usual depth (the model does not say the answer, so nothing can be traced)"
    least = min(1, n - window)  # without layer 0, where there is another window
    return least + int(torch.stack(found).mean(0)[least:].argmax()), "causal trace"


def restored_by_window(
    model: LoadedModel, fact: Fact, window: int, module: OutputModule = "mlp", *, samples: int = 3, seed: int = 0
) -> Tensor:
    """How much of the answer's probability comes back when the modules of some consecutive layers are restored at the
    subject's last tokens, those of the question and of the model's own reply: the mean over noise samples of restored
    minus corrupted, by the window's first layer, [layers - window + 1] float64.

    Args:
        model: The base model.
        fact: The fact.
        window: How many layers.
        module: MLPs or attention.
        samples, seed: Of the noise, as in ``causal_trace``.

    Raises:
        AnswerNotSaid: The model does not say the fact's answer.
    """
    require(model, "trace", "noise")
    site: HookSite = "mlp" if module == "mlp" else "attn"
    n = model.shape.n_layers
    options = SetupOptions(
        corruption="noise",
        metric="probability",
        form=None,
        token="answer",
        samples=samples,
        noise=3.0,
        seed=seed,
        partner=None,
        pool=load_facts(),
    )
    with torch.no_grad(), pooled_engine(Resumable, model) as engine:
        setup = set_up(model, engine, fact, options)
        clean, prefix = engine.record_from(setup.start, setup.clean, (site,))
        subject = setup.prompt.subject
        at = [i - setup.start for i in subject if i + 1 not in subject]
        with engine.keeping([("resid", layer) for layer in range(n)]) as states:
            corrupted = engine.run(setup.corrupted, prefix=prefix)
        entering = {**{layer: states["resid", layer] for layer in range(1, n)}, 0: setup.corrupted}

        def restore(layer: int) -> Change:
            kept = clean.states[site, layer][:, at]

            def change(state: Tensor) -> Tensor:
                state = state.clone()
                state[:, at] = kept
                return state

            return change

        restored: list[float] = []
        for first in range(n - window + 1):
            changes: dict[tuple[HookSite, int], Change] = {
                (site, layer): restore(layer) for layer in range(first, first + window)
            }
            logits = engine.run(entering[first], start=first, prefix=prefix, changes=changes)
            restored.append(float(setup.measure(logits).mean()))
    return torch.tensor(restored, dtype=torch.float64) - float(setup.measure(corrupted).mean())
