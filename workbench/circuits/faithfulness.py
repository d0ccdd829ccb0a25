"""How faithful a circuit or a selection is to the model: alone, ablated, and without each of its components.

Source: faithfulness, completeness and minimality of Wang et al. 2022 (arXiv 2211.00593), as shares of the metric's
difference between the whole model and one with everything ablated (Hanna et al. 2024, arXiv 2403.17806; Mueller et al.
2025, MIB, arXiv 2504.13151). Which ablation is used changes the numbers (Miller et al. 2024, arXiv 2407.08734), so that
it is named with every one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch

from workbench.circuits.ablations import Edges, Nodes
from workbench.circuits.all_nodes import AllNodes
from workbench.circuits.items import prepared
from workbench.circuits.wiring import Wired
from workbench.language.contrasts import prepare
from workbench.models.engine import pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.corruption import set_up
from workbench.tracing.metric import Metric, metric_name
from workbench.tracing.setup import Setup
from workbench.types import Circuit, Component, Contrast, Fact, FactSet, Faithfulness, Form, Selection
from workbench.types.contrast import Traced
from workbench.types.edge_graph import EdgeGraph
from workbench.types.faithfulness import CircuitAblation
from workbench.types.metric_words import hardly_differ
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def faithfulness(
    model: LoadedModel,
    contrasts: Traced,
    part: Circuit | Selection | str,
    *,
    ablation: CircuitAblation = "swap",
    minimality: bool = True,
    metric: Metric = "logit_diff",
    form: Form | None = None,
    token: Literal["answer", "target"] = "answer",
    partner: Fact | None = None,
    pool: FactSet | None = None,
    samples: int = 4,
    noise: float = 3.0,
    seed: int = 0,
    progress: bool = True,
) -> Faithfulness:
    """Measure how much of a metric a circuit or a selection carries by itself, what is left without it, and which of
    its components it needs.

    Of a circuit the *edges* are kept: every other edge carries what stands in for its sender's write, the embedding's
    edges too. Of a selection the *nodes* are kept: the outputs of all other heads and MLPs (or neurons, in a layer of
    which neurons are selected) are replaced at every position, and the embedding stays.

    Use other items than those on which the circuit was found.

    Args:
        model: A base or edited model; it is not changed.
        contrasts: Facts or contrasts, one or several: intervals are over them.
        part: A circuit or a selection; text with an arrow is a circuit.
        ablation: What stands in: ``"swap"`` the corrupted run's outputs, ``"noise"`` those of a run with noise (on the
            subject; of a contrast with two runs, where they differ), ``"mean"`` means over all positions but the first
            of the items' clean runs, ``"zero"`` 0.
        minimality: Leave out each component too: a pass for each.
        metric, form, token, partner, pool, samples, noise, seed, progress: As in ``edges``.

    Returns:
        ``.recovery`` (1: as the whole model), ``.completeness`` (1: nothing is left outside), ``.minimality`` by
        component (what recovery loses), each with an interval over items and with the ablation named.

    Raises:
        ValueError: An empty circuit or selection, one of another model, an edge within a parallel layer, a component
            that writes nothing by itself, ``"mean"`` of one item, ``"swap"`` of a contrast without a corrupted run, an
            ablation of everything that hardly changes the metric, or as ``edges``.

    Source: see the module's docstring.

    Example:
        >>> faithful = wb.faithfulness(model, fact, wb.Selection("L0H4 L0MLP L1MLP L2MLP"), pool=facts)
        >>> faithful.ablation, list(faithful.minimality)
        ('swap', ['L0H4', 'L0MLP', 'L1MLP', 'L2MLP'])
        >>> whole = wb.Circuit.from_selection("L0ATTN L0MLP L1ATTN L1MLP L2ATTN L2MLP", model)
        >>> round(wb.faithfulness(model, fact, whole, minimality=False, pool=facts).recovery.value, 3)
        1.0
    """
    chosen = as_part(part)
    check_part(model, chosen)
    measured = Measured.of(
        model, contrasts, "faithfulness", ablation=ablation, metric=metric, form=form, token=token, partner=partner,
        pool=pool, samples=samples, noise=noise, seed=seed,
    )  # fmt: skip
    names = _components(model, chosen) if minimality else {}
    with torch.no_grad(), pooled_engine(Wired, model) as wired:
        level: Any = Edges(wired) if isinstance(chosen, Circuit) else Nodes(wired, AllNodes.of(model.shape, [chosen]))
        masks = [*level.masks([type(chosen)(), chosen, *names.values()]), *level.masks([chosen], without=True)]
        clean, rows = measured.measure(wired, level, masks, progress)
    check_differs(ablation, clean, [row[0] for row in rows], metric_name(metric))
    return Faithfulness(
        part=chosen,
        ablation=ablation,
        metric=metric_name(metric),
        items=tuple(item.id for item in measured.items),
        clean=tuple(clean),
        empty=tuple(row[0] for row in rows),
        alone=tuple(row[1] for row in rows),
        without=tuple(row[-1] for row in rows),
        lacking={name: tuple(row[2 + i] for row in rows) for i, name in enumerate(names)},
        base_fingerprint=model.fingerprint,
    )


@dataclass(frozen=True)
class Measured:
    """Items, and what stands in for what is ablated in them."""

    model: LoadedModel
    items: Sequence[Fact | Contrast]
    options: Any
    ablation: CircuitAblation

    @classmethod
    def of(
        cls, model: LoadedModel, contrasts: Traced, function: str, *, ablation: CircuitAblation, **options: Any
    ) -> Measured:
        """Items for an ablation.

        Raises:
            ValueError: They do not allow it.
        """
        if ablation not in get_args(CircuitAblation):
            raise ValueError(f"ablation must be one of {get_args(CircuitAblation)}, got {ablation!r}.")
        corruption = "noise" if ablation == "noise" else "swap"
        items, given = prepared(model, contrasts, function, corruption=corruption, **options)
        if ablation == "mean" and len(items) < 2:
            raise ValueError(
                "ablation='mean' takes means over items, and there is one. Give several, or use ablation='swap'."
            )
        if ablation == "swap" and given.corruption == "noise":
            raise ValueError(
                "ablation='swap' puts the corrupted run's outputs in, and these contrasts have noise in the place "
                "of a corrupted run. Use ablation='noise', or give them corrupted=."
            )
        if ablation == "noise":
            items = [_with_noise(model, item, given.noise) for item in items]
            given = replace(given, corruption="noise")
        return cls(model, items, given, ablation)

    def measure(
        self, wired: Wired, level: Any, masks: Sequence[Any], progress: bool
    ) -> tuple[list[float], list[list[float]]]:
        """The metric of each item's whole model, and with each mask."""
        from tqdm.auto import tqdm

        setups, clean = list[Setup](), list[float]()
        for item in self.items:
            setup = set_up(self.model, wired, item, self.options)
            logits = wired.run(setup.clean)
            setups.append(setup.against(logits))
            clean.append(float(setups[-1].measure(logits.float())))
        stand_ins = None if self.ablation in ("swap", "noise") else level.stand_ins(setups, self.ablation)
        rows: list[list[float]] = []
        bar = tqdm(setups, desc=f"Ablating ({self.ablation})", disable=not progress or len(setups) == 1)
        for i, setup in enumerate(bar):
            of_item = level.stand_ins([setup], self.ablation)[0] if stand_ins is None else stand_ins[i]
            rows.append(level.measure(setup, of_item, masks).tolist())
        return clean, rows


def _with_noise(model: LoadedModel, item: Any, noise: float) -> Any:
    """A contrast with noise where its two runs differ; facts have their own."""
    if not isinstance(item, Contrast) or item.noise is not None:
        return item
    return replace(item, corrupted=None, noise=noise, noise_at=prepare(model, item).changed)


def as_part(part: Circuit | Selection | str) -> Circuit | Selection:
    """A circuit or a selection, or either as text."""
    if isinstance(part, str):
        return Circuit(part) if "->" in part else Selection(part)
    return part


def check_part(model: LoadedModel, part: Circuit | Selection) -> None:
    """Raise a ValueError for an empty part, or one that the model has not."""
    if not part:
        what = "circuit" if isinstance(part, Circuit) else "selection"
        raise ValueError(f"The {what} is empty: there is nothing whose faithfulness could be measured.")
    if isinstance(part, Circuit):
        part.check(model)
    else:
        for component in part:
            component.check(model.shape)


def _components(model: LoadedModel, part: Circuit | Selection) -> dict[str, Circuit | Selection]:
    """The part without each of its components, by the component's name."""
    if isinstance(part, Selection):
        return {str(component): part - [component] for component in part}
    graph = EdgeGraph.of(model)
    edges = part.edges_in(graph)
    found: dict[str, Circuit | Selection] = {}
    for component in Circuit(edges).selection:
        own = {component, Component(component.layer, "Q", component.index)} if component.kind == "H" else {component}
        found[str(component)] = Circuit(e for e in edges if e.sender not in own and e.receiver not in own)
    return found


def check_differs(ablation: str, clean: Sequence[float], empty: Sequence[float], metric: str) -> None:
    """Raise a ValueError where ablating everything hardly changes the metric."""
    whole, nothing = sum(clean) / len(clean), sum(empty) / len(empty)
    if hardly_differ(whole, nothing):
        raise ValueError(
            f"Ablating everything ({ablation}) hardly changes {metric}, from {whole:.4g} to {nothing:.4g}, so there "
            "is nothing to recover. Use another ablation, metric or items."
        )
