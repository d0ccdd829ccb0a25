"""Scores of a model's edges before and after an edit, on the same runs by the same metric, and which edges changed.

Everything that decides what is measured comes from the base, as in ``compare_maps``: the form, the model's own answer
up to the measured token, the swap partner, the noise, and the two tokens of ``logit_diff``. So a score of -2 means the
same before and after: with this edge's corrupted write the clean run loses 2 logits between the same two tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from workbench.circuits.edges import edges
from workbench.circuits.mean_edges import mean_edges
from workbench.comparing.contexts import outside_context
from workbench.editing.applied import applied, check_under
from workbench.language.contrasts import prepare
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.tracing.corruption import one_form
from workbench.tracing.metric import Metric
from workbench.types import Circuit, Contrast, EdgeComparison, EdgeMap, Edit, Fact, FactSet, Form, TracedPrompt
from workbench.types.cancelling import CancelFlag, check_cancel
from workbench.types.cell_intervals import mean_and_error
from workbench.types.contrast import Traced, as_traced
from workbench.types.edge_comparison import check_k
from workbench.types.edge_map import EdgeMethod
from workbench.types.effect import Corruption
from workbench.types.torch_settings import own_torch_settings

LARGEST = 100
"""So many edges are large, of more."""


@own_torch_settings()
def compare_edges(
    model: LoadedModel,
    edit: Edit,
    fact: Traced | None = None,
    *,
    k: int | None = None,
    method: EdgeMethod = "eap-ig",
    steps: int = 5,
    chosen: Circuit | Iterable[Any] | str | None = None,
    stage: str | None = None,
    strength: float = 1.0,
    corruption: Corruption = "swap",
    metric: Metric = "logit_diff",
    form: Form | None = None,
    token: Literal["answer", "target"] = "answer",
    partner: Fact | None = None,
    pool: FactSet | None = None,
    samples: int = 4,
    control: bool = True,
    on_step: Callable[[int, int], Any] | None = None,
    cancel: CancelFlag | None = None,
    progress: bool = True,
) -> EdgeComparison:
    """Score every edge before and after an edit, and tell which of the large ones it weakened, strengthened or turned,
    and which are new or gone.

    The rule: an edge is large where it is among the ``k`` largest scores by size. It is *new* where it is large after
    the edit, was not before, and grew; *gone* where it was large, is not any more, and shrank. Any other edge that is
    large before or after is *turned* where its score has the other sign, *weakened* where it shrank, *strengthened*
    where it grew. So an edge that only rises or falls in rank, since others changed, is neither new nor gone.

    Both are measured in logits between the same two tokens: the old answer, and the answer to the swapped subject (with
    noise the edit's new answer). A ``partner`` whose answer is the new one makes a swap compare old with new, and
    ``token="target"`` asks what carries the new answer. Scores are not divided by clean minus corrupted, since an edit
    may leave hardly any difference of its own; probabilities are less comparable, for they hardly move near 0 and 1. A
    score changes where the edit changes what is written or who reads it, also far from what it moved.

    Args:
        model: The edit's base; it is not changed.
        edit: The edit.
        fact: Facts or contrasts, one or several (scores are means over them); the edit's first fact by default.
        k: How many edges are large; by default 100, or all where fewer have a score.
        method, steps: As in ``edges``. ``"eap"`` and ``"eap-ig"`` estimate: measure what matters once more by
            ``method="patching", chosen=changes.circuit()``.
        chosen: The edges to score; by default all.
        stage: The edit's stages up to this one; None for all.
        strength: Of the edit, as in ``applied``.
        corruption, form, token, partner, pool: As in ``causal_trace``, of facts; a contrast has its own runs.
        metric: As in ``edges``. ``"kl"`` compares each model with its own clean run.
        samples: Noise samples.
        control: Score the edges at strength 0 as well: ``EdgeComparison.control`` is by how much any of them changes,
            exactly 0 where all changes are the edit's.
        on_step: Called with how many maps are done and how many there are.
        cancel: A flag that is looked at between maps.
        progress: Show a bar over maps.

    Returns:
        Both maps [receivers, senders] in units of the metric, and a record of each large edge that changed, with both
        scores. Of several facts or contrasts the error is that of their own changes.

    Raises:
        ValueError: An edit of another base, ``k`` below 1 or above the number of edges with a score, no fact or
            contrast, or as ``edges``.
        Cancelled: ``cancel`` was set.

    Source: scores as in ``edges``; that an edit is compared edge by edge, and the rule, are of this package.

    Example:
        >>> changes = wb.compare_edges(model, edit, k=20, pool=facts)
        >>> first = changes.changes[0]
        >>> first.change == first.after - first.before
        True
        >>> wb.compare_edges(model, edit, strength=0.0, pool=facts).changes
        ()
    """
    if k is not None:
        check_k(k)
    check_under(model, edit, "compare_edges")
    traced = as_traced(edit.facts[0] if fact is None else fact, "compare_edges")
    if partner is not None and len(traced) > 1:
        raise ValueError(f"partner= is for one fact; compare_edges was given {len(traced)}.")
    options: dict[str, Any] = {
        "method": method, "steps": steps, "chosen": chosen, "metric": metric, "corruption": corruption,
        "form": one_form(model, traced, form, token), "token": token, "partner": partner, "pool": pool,
        "samples": samples,
    }  # fmt: skip
    from tqdm.auto import tqdm

    parts = 3 if control else 2
    with tqdm(total=parts * len(traced), desc="Comparing edges", disable=not progress) as bar:
        scoring = _Scoring(traced, options, parts * len(traced), on_step, cancel, bar)
        base = scoring.maps(model, k)
        with applied(model, edit, stage, strength, stack=True) as edited:
            _check_text(edited, model, traced, options)
            changed = scoring.maps(edited)
        unchanged: list[EdgeMap] = []
        if control:
            with applied(model, edit, stage, 0.0, stack=True) as same:
                unchanged = scoring.maps(same)
    items = tuple(one.id for one in traced)
    before, after = (maps[0] if len(maps) == 1 else mean_edges(maps, items) for maps in (base, changed))
    _, error = mean_and_error(torch.stack([b.values - a.values for a, b in zip(base, changed, strict=True)]))
    return EdgeComparison(
        before=before,
        after=after,
        k=min(LARGEST, before.n_edges) if k is None else k,
        stage=stage or edit.stage_names[-1],
        strength=strength,
        edit_id=edit.id,
        items=items,
        stderr=error,
        control=max(_largest(a, b) for a, b in zip(base, unchanged, strict=True)) if control else None,
    )


@dataclass
class _Scoring:
    """Scores items one by one, so that each has its own change.

    Args:
        traced: The facts or contrasts.
        options: Of ``edges``.
        total: How many maps there are in all.
        on_step, cancel: As in ``compare_edges``.
        bar: Of progress.
    """

    traced: list[Fact] | list[Contrast]
    options: dict[str, Any]
    total: int
    on_step: Callable[[int, int], Any] | None
    cancel: CancelFlag | None
    bar: Any
    done: int = 0

    def maps(self, model: LoadedModel, k: int | None = None) -> list[EdgeMap]:
        """A map of each item; ``k`` must be within the first one's edges."""
        found: list[EdgeMap] = []
        for one in self.traced:
            check_cancel(self.cancel, f"after {self.done} of {self.total} maps of edges")
            found.append(edges(model, one, progress=False, cancel=self.cancel, **self.options))
            if k is not None:
                check_k(k, found[0].n_edges)
            self.done += 1
            self.bar.update()
            if self.on_step is not None:
                self.on_step(self.done, self.total)
        return found


def _check_text(edited: LoadedModel, base: LoadedModel, traced: list[Fact] | list[Contrast], options: Any) -> None:
    """Raise a ValueError where an edit's context makes the edited model read another text than the base."""
    for one in traced if edited.context else ():
        of_edited, own = (_prompt(model, one, options["form"], options["token"]) for model in (edited, base))
        outside_context(edited, one, of_edited, own)


def _prompt(
    model: LoadedModel, one: Fact | Contrast, form: Form | None, token: Literal["answer", "target"]
) -> TracedPrompt:
    return traced_prompt(model, one, form=form, token=token) if isinstance(one, Fact) else prepare(model, one).prompt


def _largest(first: EdgeMap, second: EdgeMap) -> float:
    """By how much two maps differ anywhere."""
    return float((second.values - first.values).abs().nan_to_num().max())
