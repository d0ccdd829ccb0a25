"""What the recipes of closed-form methods share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from workbench.editing.solved.target import TargetSettings
from workbench.types import BaseRecipe, TrainedRecipe
from workbench.types.recipe import AnswerStyle, Check, is_probability
from workbench.types.setting import SEED, Setting

CovarianceKind = Literal["measured", "identity"]
SolvedStage = Literal["edit", "unlearn", "learn"]
LEVERAGE = Setting(
    name="leverage", tip="More comes nearer to the target, less changes less elsewhere", low=0, above=True
)
KeysOf = Literal["mean", "each"]


@dataclass(frozen=True, kw_only=True)
class SolvedRecipe(BaseRecipe):
    """What closed-form methods share: where they write, what they spare, and how a target vector is found.

    Args:
        layers: The layers whose output projections are written, where nothing is selected; None: where the causal trace
            of the facts finds their subject.
        window: How many layers the trace chooses. Methods that write one layer take the last of them.
        stages: ``("edit",)``, or ``("unlearn", "learn")``: first a breaking off in the answer's place, then the
            target.
        covariance: ``"measured"`` (``wb.covariance``), or ``"identity"``: C left out, as in EasyEdit's shipped settings
            of ROME.
        ridge: Added to C's diagonal, as a share of its mean.
        protect: Weight of the keys at subjects of retained facts, beside C.
        close: Close the update for other questions about the same subjects: add their keys to what is spared (as in
            ``wb.recipes.Keyed``, with ``leave_out``, ``closing_wordings`` and ``closing_weight``). With a measured
            covariance.
        leave_out, closing_wordings, closing_weight: See there.
        covariance_tokens: Most tokens that C is measured on.
        min_tokens: Fewer are refused; None for as many as a module has inputs.
        keys: One mean key a fact, or each occurrence of the subject in each context by itself.
        answers: As in ``TrainedRecipe``.
        contexts: As in ``TrainedRecipe``.
        clozes: Teach the fact's own cloze, too.
        end_below: As in ``TrainedRecipe``.
        retain_size: Of the default retain set, whose subjects' keys are spared.
        steps, rate, last_rate, batch_size, others, hinge, kl_weight, about_weight, size_weight, largest: Of the target
            vector, see ``TargetSettings``.
        force: Write even where the selected columns hardly see the subject.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.
    """

    without_selection: ClassVar[str] = "Outputs of layers that a trace chooses"
    trains: ClassVar[str] = "low-rank updates, solved for"
    panel_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="largest", tip="Longest target vector, as a share of the state there", low=0, above=True),
        SEED,
    )

    layers: tuple[int, ...] | None = None
    window: int = 5
    stages: tuple[SolvedStage, ...] = ("edit",)
    covariance: CovarianceKind = "measured"
    ridge: float = 1e-3
    protect: float = 10.0
    close: bool = False
    leave_out: int = 1
    closing_wordings: int = 3
    closing_weight: float = 30.0
    covariance_tokens: int = 30_000
    min_tokens: int | None = None
    keys: KeysOf = "each"
    answers: AnswerStyle = "own"
    contexts: bool = True
    clozes: bool = True
    end_below: float = 0.5
    retain_size: int = 80
    steps: int = 24
    rate: float = 0.1
    last_rate: float = 0.2
    batch_size: int = 8
    others: int = 4
    hinge: float | None = 0.95
    kl_weight: float = 1.0
    about_weight: float = 0.5
    size_weight: float = 0.02
    largest: float = 0.5
    force: bool = False

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        layers = self.layers
        yield "layers", layers is None or (len(layers) > 0 and min(layers) >= 0), "None, or layers from 0"
        yield "window", self.window >= 1, "1 or more"
        yield (
            "stages",
            self.stages in (("edit",), ("unlearn", "learn"), ("learn",), ("unlearn",)),
            ("('edit',) or ('unlearn', 'learn'), or one of these stages alone"),
        )
        yield "covariance", self.covariance in ("measured", "identity"), "'measured' or 'identity'"
        yield "keys", self.keys in ("mean", "each"), "'mean' or 'each'"
        yield "answers", self.answers in ("own", "short"), "'own' or 'short'"
        yield "close", not self.close or self.covariance == "measured", "False where covariance is 'identity'"
        for name in ("ridge", "protect", "closing_weight", "kl_weight", "about_weight", "size_weight", "end_below"):
            yield name, 0 <= getattr(self, name) < math.inf, "a finite number from 0"
        for name in ("rate", "last_rate", "largest"):
            yield name, 0 < getattr(self, name) < math.inf, "a finite number above 0"
        for name in ("steps", "batch_size", "covariance_tokens"):
            yield name, getattr(self, name) >= 1, "1 or more"
        yield "min_tokens", self.min_tokens is None or self.min_tokens >= 1, "None or 1 or more"
        for name in ("others", "retain_size", "leave_out", "closing_wordings"):
            yield name, getattr(self, name) >= 0, "0 or more"
        yield "hinge", is_probability(self.hinge), "None or in (0, 1]"

    @property
    def stage_names(self) -> tuple[str, ...]:
        """See ``BaseRecipe``."""
        return self.stages

    @property
    def closed_form(self) -> BaseRecipe:
        """See ``BaseRecipe``: all of the edit."""
        return self

    @property
    def answer_style(self) -> AnswerStyle:
        """See ``BaseRecipe``."""
        return self.answers

    @property
    def spares_keys(self) -> bool:
        """Whether keys at subjects of retained facts are needed."""
        return self.protect > 0 and self.covariance == "measured"

    @property
    def uses_retain(self) -> bool:
        """Whether a retain set is needed: for its keys."""
        return self.spares_keys

    @property
    def fits_retained(self) -> bool:
        """Never: a closed form reads keys of retained facts, and may do without."""
        return False

    @property
    def target_settings(self) -> TargetSettings:
        """How targets are optimised."""
        return TargetSettings(
            steps=self.steps,
            rate=self.rate,
            last_rate=self.last_rate,
            batch=self.batch_size,
            others=self.others,
            hinge=self.hinge,
            kl_weight=self.kl_weight,
            about_weight=self.about_weight,
            size_weight=self.size_weight,
            largest=self.largest,
        )

    @property
    def taught(self) -> TrainedRecipe:
        """What the training rows are made by."""
        rows = {"answers": self.answers, "contexts": self.contexts, "end_below": self.end_below}
        return TrainedRecipe(retain_weight=0.0, **rows)


def taught_stage(stage: str) -> Literal["unlearn", "learn"]:
    """What a stage teaches: ``"edit"`` teaches the target."""
    return "unlearn" if stage == "unlearn" else "learn"
