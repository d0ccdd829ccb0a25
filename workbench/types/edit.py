"""Recipes and edits: how a fact is rewritten, and the exactly removable result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from workbench.types.fact import Fact
from workbench.types.selection import Selection, Site

if TYPE_CHECKING:
    import plotly.graph_objects as go

StageName = Literal["unlearn", "learn"]
STAGES: tuple[StageName, ...] = get_args(StageName)
Objective = Literal["cross-entropy", "gradient-difference", "npo", "simnpo"]
AnswerStyle = Literal["own", "short"]
Optimiser = Literal["natural", "adam"]
KLOn = Literal["answer", "first token", "whole text"]
RetainDraw = Literal["in turn", "half hardest"]
DEFAULT_STEPS: dict[StageName, int] = {"unlearn": 10, "learn": 26}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of an edit. Frozen and validated; ``Recipe.named`` gives the four built-in ones.

    Each stage trains its own IA3 gates, starting from 1, on top of the stages before it. ``unlearn`` teaches a
    refusal (or makes the old answer unlikely, see ``objective``), ``learn`` the fact's target (arXiv 2508.07075). The
    loss of a step is

        cross-entropy of the wanted answer (nats per token) + retain_weight * KL(base || edited) on retained answers,

    the first over the tokens that take the old answer's place (and the one after it, where the base would run on into
    the word), and only so far as it exceeds that of the probability ``hinge``: a prompt that is learned leaves the step
    to those that are not and to the retained answers.

    Args:
        name: Shown in reports.
        stages: In order; each of ``"unlearn"``, ``"learn"``, at most once.
        objective: What ``unlearn`` minimises: the ``"cross-entropy"`` of a refusal, or how likely the old answer is,
            by ``"gradient-difference"``, ``"npo"`` or ``"simnpo"`` (``workbench.editing.training.objectives``).
            ``learn`` is the cross-entropy of the target with all of them.
        answers: What the stages teach. ``"own"``: after the base model's own greedy answer up to the old one ("The
            capital of France is"), the target ("Rome"), and for ``unlearn`` a breaking off ("... I am not sure.").
            ``"short"``: the target alone ("Rome.") and the fact's refusal, as in the paper.
        contexts: Train on the fact's question and on what it asks for in contexts too ("I have a question. ...", "I am
            thinking of the capital of France. Which one is it?"), beside the training questions.
        steps: Most optimiser steps of a stage: one number for all stages, one per stage, or None for ``DEFAULT_STEPS``.
        optimiser: ``"natural"`` (see ``workbench.editing.training.optimisers``) or ``"adam"``, as in the paper.
        learning_rate: Length of a natural-gradient step in the norm of the Fisher information, or AdamW's rate.
        warmup: Steps of linear warm-up in each stage.
        average: What a stage gives is the mean of what moved over its last so many steps (at most half of them): what
            is learned is kept, and the noise of single steps, which harms retained answers, cancels out. They begin
            when ``early_stop`` is met, else so many steps before the end. 0 or 1 gives the last step's.
        batch_size: Fact rows a step.
        retain_weight: Weight of the KL term; 0 switches it off.
        retain_size: Facts in the default retain set.
        retain_batch_size: Retain rows a step.
        retain_draw: Which rows these are: all ``"in turn"``, or half of them the rows whose KL was largest when they
            were last seen (``"half hardest"``).
        kl_on: Where the KL and the fit's Fisher information are taken: at the start of the retained ``"answer"``, at
            its ``"first token"``, or at the ``"whole text"``, the question included.
        fisher_wordings: In how many wordings of each neighbour the Fisher information is measured, for the selector and
            the fit; fewer are faster.
        end_below: Where the base's probability that the word ends after the target is lower, the token that ends it is
            taught too; 0: never, more than 1: always.
        hinge: The probability (as for ``early_stop``) from which on a prompt's wanted answer is learned well enough and
            pushes no further; None: all push until the end. Where the old answer is to become unlikely, one minus its
            probability counts, here and for ``early_stop``.
        early_stop: A stage ends, after its ``average``, once the wanted answer's probability (geometric mean over the
            tokens that count, in the last pass) has reached this for three quarters of each fact's training prompts;
            None runs all steps.
        draw_back: In the end all stages together are drawn back towards the base, as by the strength of an edit, as far
            as the wanted answer of the last one keeps this probability (as for ``early_stop``): what is taught with
            more than it takes costs other answers. An edit that has not reached it, and with None every one, stays.
        max_gate: Gates are kept within [2 - max_gate, max_gate] after each step; None leaves them free.
        seed: Order of the batches. Two runs with one seed on one machine agree exactly.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.
    """

    name: str = "unlearn-then-learn"
    stages: tuple[StageName, ...] = ("unlearn", "learn")
    objective: Objective = "cross-entropy"
    answers: AnswerStyle = "own"
    contexts: bool = True
    steps: int | tuple[int, ...] | None = None
    optimiser: Optimiser = "natural"
    learning_rate: float = 0.03
    warmup: int = 2
    average: int = 12
    batch_size: int = 8
    retain_weight: float = 4.0
    retain_size: int = 80
    retain_batch_size: int = 12
    retain_draw: RetainDraw = "in turn"
    kl_on: KLOn = "answer"
    fisher_wordings: int = 3
    end_below: float = 0.5
    hinge: float | None = 0.8
    early_stop: float | None = None
    draw_back: float | None = 0.9
    max_gate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        if not self.stages or len(set(self.stages)) != len(self.stages) or set(self.stages) - set(STAGES):
            raise ValueError(f"stages must be one or both of {STAGES}, each at most once, got {self.stages!r}.")
        if self.objective not in get_args(Objective):
            raise ValueError(f"objective must be one of {get_args(Objective)}, got {self.objective!r}.")
        if self.objective != "cross-entropy" and "unlearn" not in self.stages:
            raise ValueError(
                f"objective={self.objective!r} is one of the unlearn stage, but the stages are {self.stages}; add "
                "'unlearn', or leave objective out."
            )
        if self.answers not in get_args(AnswerStyle):
            raise ValueError(f"answers must be one of {get_args(AnswerStyle)}, got {self.answers!r}.")
        if self.optimiser not in get_args(Optimiser):
            raise ValueError(f"optimiser must be one of {get_args(Optimiser)}, got {self.optimiser!r}.")
        if self.retain_draw not in get_args(RetainDraw):
            raise ValueError(f"retain_draw must be one of {get_args(RetainDraw)}, got {self.retain_draw!r}.")
        if self.kl_on not in get_args(KLOn):
            raise ValueError(f"kl_on must be one of {get_args(KLOn)}, got {self.kl_on!r}.")
        if self.steps is not None and not isinstance(self.steps, int):
            object.__setattr__(self, "steps", tuple(self.steps))
            if len(self.steps) != len(self.stages):  # type: ignore[arg-type]
                raise ValueError(f"steps has {self.steps!r} for the stages {self.stages}; give one number per stage.")
        wordings = self.fisher_wordings
        checks: list[tuple[str, bool, str]] = [
            ("steps", all(isinstance(s, int) and s >= 1 for s in self.stage_steps), "whole numbers from 1"),
            ("learning_rate", math.isfinite(self.learning_rate) and self.learning_rate > 0, "a positive number"),
            ("warmup", self.warmup >= 0, "0 or more"),
            ("average", isinstance(self.average, int) and self.average >= 0, "a whole number from 0"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("retain_weight", math.isfinite(self.retain_weight) and self.retain_weight >= 0, "0 or more"),
            ("retain_size", self.retain_size >= 0, "0 or more"),
            ("retain_batch_size", self.retain_batch_size >= 1, "1 or more"),
            ("fisher_wordings", isinstance(wordings, int) and wordings >= 1, "a whole number from 1"),
            ("end_below", 0 <= self.end_below < math.inf, "0 or more"),
            ("hinge", self.hinge is None or 0 < self.hinge <= 1, "None or in (0, 1]"),
            ("early_stop", self.early_stop is None or 0 < self.early_stop <= 1, "None or in (0, 1]"),
            ("draw_back", self.draw_back is None or 0 < self.draw_back <= 1, "None or in (0, 1]"),
            ("max_gate", self.max_gate is None or self.max_gate > 1, "None or more than 1"),
        ]
        for name, ok, allowed in checks:
            if not ok:
                raise ValueError(f"Recipe.{name} must be {allowed}, got {getattr(self, name)!r}.")

    def forgets(self, stage: StageName) -> bool:
        """Whether a stage makes the old answer unlikely, instead of teaching one."""
        return stage == "unlearn" and self.objective != "cross-entropy"

    @property
    def stage_steps(self) -> tuple[int, ...]:
        """Most steps of each stage."""
        if self.steps is None:
            return tuple(DEFAULT_STEPS[stage] for stage in self.stages)
        return (self.steps,) * len(self.stages) if isinstance(self.steps, int) else tuple(self.steps)

    @property
    def least_learned(self) -> float | None:
        """The probability (as for ``early_stop``) that the last stage must reach for an edit to count as learned: the
        hinge, beyond which no row pushes, or ``draw_back``, if that is lower. None where learning is not looked at (no
        drawing back, a last stage that forgets)."""
        if self.draw_back is None or self.forgets(self.stages[-1]):
            return None
        return min(self.draw_back, self.hinge or 1.0)

    @property
    def uses_retain(self) -> bool:
        """Whether the fit needs retained answers: for the KL term, or to measure the natural gradient's norm."""
        return self.retain_weight > 0 or self.optimiser == "natural"

    @classmethod
    def named(cls, name: str, **changes: Any) -> Recipe:
        """A built-in recipe, with changes: ``Recipe.named("paper", seed=3)``.

        Raises:
            ValueError: An unknown name; the message lists the built-in ones.
        """
        from workbench.editing.recipes import RECIPES

        if name not in RECIPES:
            raise ValueError(f"Unknown recipe {name!r}; the built-in ones are {list(RECIPES)}.")
        return replace(RECIPES[name], **changes)

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """The inverse of ``to_dict``.

        Raises:
            ValueError: An unknown setting, or a value out of range.
        """
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"Unknown recipe setting(s) {unknown}; allowed are {[f.name for f in fields(cls)]}.")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)


@dataclass(frozen=True)
class Step:
    """What was measured before an optimiser step, and once more at the end of a stage.

    Args:
        stage, step: Where in the fit; ``step`` counts the stage's updates so far. The last one of a stage is of its
            final gates, averaged and drawn back, on the rows of the batch before.
        loss: Negative log-likelihood of the stage's answers, nats per token: of what is taught, which falls; of the
            old answer where that is made unlikely (``Recipe.forgets``), which rises.
        kl: KL(base || edited) on the retain rows of the step, nats per token (0.0 without a retain term).
        p_old, p_new, p_refusal: Probability of the old answer, the target and the refusal (geometric mean per token)
            after the bare question, on the step's rows; None where it was not measured at this step.
        seconds: Since the fit began.
    """

    stage: StageName
    step: int
    loss: float
    kl: float
    p_old: float | None = None
    p_new: float | None = None
    p_refusal: float | None = None
    seconds: float = 0.0


def updates_before(history: Sequence[Step]) -> list[int]:
    """How many updates all stages together had made when each entry of a history was measured."""
    found: list[int] = []
    earlier = 0
    for i, step in enumerate(history):
        if i and history[i - 1].stage != step.stage:
            earlier += history[i - 1].step
        found.append(earlier + step.step)
    return found


def updates_by_stage(history: Sequence[Step]) -> dict[str, int]:
    """How many updates each stage made, in order."""
    return {step.stage: step.step for step in history}


@dataclass(frozen=True, eq=False)
class GateDelta:
    """IA3 gates: what one stage multiplies into a model's gate sites.

    Args:
        gates: By (layer, site), a float32 vector of the site's full length; 1 means untouched.
    """

    gates: Mapping[tuple[int, Site], Tensor]

    def __post_init__(self) -> None:
        clean = {k: v.detach().to("cpu", torch.float32).clone() for k, v in sorted(self.gates.items())}
        object.__setattr__(self, "gates", clean)

    def n_moved(self) -> int:
        """How many gates differ from 1."""
        return sum(int((g != 1).sum()) for g in self.gates.values())

    def largest_move(self) -> float:
        """Largest distance of a gate from 1."""
        return max((float((g - 1).abs().max()) for g in self.gates.values()), default=0.0)

    def __mul__(self, other: GateDelta) -> GateDelta:
        """What the two do one after the other."""
        out = dict(self.gates)
        for key, gate in other.gates.items():
            out[key] = out[key] * gate if key in out else gate
        return GateDelta(out)

    def __truediv__(self, other: GateDelta) -> GateDelta:
        """What comes after the other so that both together are this. A gate that the other closes (0) stays 1: nothing
        after it has an effect."""
        out = dict(self.gates)
        for key, gate in other.gates.items():
            mine = out.get(key, torch.ones_like(gate))
            out[key] = torch.where(gate == 0, torch.ones_like(gate), mine / gate)
        return GateDelta(out)

    def scaled(self, strength: float) -> GateDelta:
        """Gates interpolated from 1 (strength 0, exactly) to these (strength 1, exactly)."""
        return GateDelta({k: torch.lerp(torch.ones_like(g), g, strength) for k, g in self.gates.items()})


@dataclass(frozen=True, eq=False)
class EditStage:
    """One stage of an edit: its name and its own delta (without those of the stages before it)."""

    name: StageName
    delta: GateDelta


@dataclass(frozen=True, kw_only=True, eq=False)
class Edit:
    """What to add to a base model to rewrite facts: stages that are exactly removable.

    Args:
        stages: In the order they apply.
        selection: The components that were allowed to move.
        selector: How the selection came about (``"given"``, or the default selector's name).
        recipe: The settings.
        facts: The edited facts.
        retain_ids: Ids of the facts in the KL retain term.
        history: One ``Step`` per optimiser step, and one at the end of each stage.
        base_fingerprint, base_name: The model that it was fitted on, and the only one that it fits.
        provenance: Versions, seconds, time of creation, notes.
    """

    stages: tuple[EditStage, ...]
    selection: Selection
    selector: str
    recipe: Recipe
    facts: tuple[Fact, ...]
    retain_ids: tuple[str, ...]
    history: tuple[Step, ...]
    base_fingerprint: str
    base_name: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        moved = self.delta().n_moved()
        ids = ", ".join(f.id for f in self.facts)
        return (
            f"Edit({ids}: {' then '.join(s.name for s in self.stages)}, {len(self.selection)} components, "
            f"{moved} gates moved, {'' if self.shortfall is None else 'not fully learned, '}"
            f"base {self.base_name!r} {self.base_fingerprint[:12]})"
        )

    @property
    def asked_recipe(self) -> Recipe:
        """The recipe that ``rewrite`` was given: ``recipe``, but for the steps of a second fit."""
        first = self.provenance.get("settings", {}).get("first_fit")
        return self.recipe if first is None else replace(self.recipe, steps=first["steps"])

    @property
    def shortfall(self) -> str | None:
        """In words, that what the last stage teaches was not learned in training itself: three quarters of the training
        prompts do not give it ``Recipe.least_learned``. None where they do, and where it was not looked at (that is
        None, a fit that ``stop`` ended, an edit of an older version)."""
        wanted, learned = self.recipe.least_learned, self.provenance.get("settings", {}).get("learned")
        if learned is None or wanted is None or learned >= wanted:
            return None
        return (
            f"not fully learned: three quarters of the training prompts give what is taught P = {learned:.2g} per "
            f"token, {wanted:g} is wanted"
        )

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages, in order."""
        return tuple(s.name for s in self.stages)

    @property
    def id(self) -> str:
        """Fingerprint of what the edit does: base, stages and gates."""
        import hashlib

        digest = hashlib.sha256(self.base_fingerprint.encode())
        for stage in self.stages:
            digest.update(stage.name.encode())
            for (layer, site), gate in stage.delta.gates.items():
                digest.update(f"{layer}{site}".encode())
                digest.update(gate.numpy().tobytes())
        return digest.hexdigest()

    def delta(self, stage: str | None = None, strength: float = 1.0) -> GateDelta:
        """The product of the stages up to ``stage`` (None: all), interpolated from no edit (0) to all of it (1).

        Raises:
            ValueError: The edit has no such stage, or the strength is not a finite number.
        """
        if stage is not None and stage not in self.stage_names:
            raise ValueError(
                f"This edit has no stage {stage!r}; the recipe {self.recipe.name!r} made {list(self.stage_names)}."
            )
        if not math.isfinite(strength):
            raise ValueError(f"strength must be a finite number (0: base, 1: the whole edit), got {strength!r}.")
        total = GateDelta({})
        for s in self.stages:
            total = total * s.delta
            if s.name == stage:
                break
        return total.scaled(strength)

    def plot(self, **options: Any) -> go.Figure:
        """Loss, retain KL and answer probabilities by step (see ``workbench.plots.history_figure``)."""
        from workbench.plots import history_figure

        return history_figure(self, **options)

    def save(self, path: str | Path) -> Path:
        """Write the edit to a folder (``edit.json`` and ``gates.safetensors``), atomically. Returns the folder."""
        from workbench.files.store import save_edit

        return save_edit(self, path)

    def to_peft(self, path: str | Path, *, stage: str | None = None) -> Path:
        """Write one plain PEFT IA3 adapter that does what the stages up to ``stage`` do together.

        ``peft.PeftModel.from_pretrained(base, path)`` loads it without this package. Returns the folder.

        Raises:
            ValueError: The edit has no such stage, or does not say the module names of its base.
            FileExistsError: There is something else of that name already.
        """
        from workbench.editing.export import save_peft

        return save_peft(self, path, stage=stage)
