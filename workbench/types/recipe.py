"""Recipes: the settings of an edit. The type of a recipe chooses the method; each lies in its method's file.

``BaseRecipe`` is what all share, ``TrainedRecipe`` what the methods share that train for some steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Self, get_args

from workbench.types.annotations import fits, kind_words, kinds_of
from workbench.types.plain import is_list, is_tuple, is_whole, lists_as_tuples, tuples_as_lists
from workbench.types.refused import RefusedValue
from workbench.types.setting import SEED, Setting

StageName = Literal["unlearn", "learn"]
STAGES: tuple[StageName, ...] = get_args(StageName)
Objective = Literal["cross-entropy", "gradient-difference", "npo", "simnpo"]
AnswerStyle = Literal["own", "short"]
Optimiser = Literal["natural", "adam"]
KLOn = Literal["answer", "first token", "whole text"]
RetainDraw = Literal["in turn", "half hardest"]
DEFAULT_STEPS: dict[StageName, int] = {"unlearn": 10, "learn": 26}

Check = tuple[str, bool, str]
"""A setting's name, whether its value is allowed, and what is."""


@dataclass(frozen=True, kw_only=True)
class BaseRecipe:
    """What every recipe has. Frozen and validated.

    Args:
        name: Shown in reports.
        seed: Of everything that is drawn. Two runs with one seed on one machine agree exactly.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.
    """

    method: ClassVar[str] = ""
    """The method's name, in saved files and in tables."""

    without_selection: ClassVar[str] = ""
    """What moves where nothing is selected, in words for a menu."""
    selects: ClassVar[bool] = False
    """Whether the method then selects components."""
    takes_number: ClassVar[bool] = False
    """Whether the selection may be a number: so many neurons of the method's own choice."""
    trains: ClassVar[str] = "weights"
    """What kind of numbers the method moves, in words; ``"nothing"`` where it has no parameter."""
    one_module: ClassVar[bool] = False
    """Whether the method moves one module, so that a random control of it lies in one layer, too."""
    whole_layers: ClassVar[bool] = False
    """Whether of a selection only its layers matter, which move whole."""
    panel_settings: ClassVar[tuple[Setting, ...]] = (SEED,)
    """What a panel lets a person change, besides the steps of the stages."""

    name: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_kinds()
        for setting, ok, allowed in self._checks():
            if not ok:
                self._refuse(setting, allowed)

    def _check_kinds(self) -> None:
        """Raise a ``RefusedValue`` for a value of another kind than its annotation; a list becomes a tuple."""
        for one in fields(self):
            value: Any = getattr(self, one.name)
            if is_list(value):
                value = tuple(value)  # so that a recipe equals the one that is read back, and has a hash
                object.__setattr__(self, one.name, value)
            kind = kinds_of(type(self)).get(one.name, Any)
            if not fits(value, kind):
                self._refuse(one.name, self._allowed(one.name) or kind_words(kind))

    def _allowed(self, setting: str) -> str:
        """What the checks allow for a setting; empty where they say nothing of a value of such a kind."""
        try:
            return next((allowed for name, ok, allowed in self._checks() if name == setting and not ok), "")
        except TypeError:
            return ""

    def _refuse(self, setting: str, allowed: str) -> None:
        value = getattr(self, setting)
        message = f"Recipe.{setting} must be {allowed}, got {value!r}."
        raise RefusedValue(message, name=setting, value=value, allowed=allowed)

    def _checks(self) -> Iterator[Check]:
        """What is checked of the values."""
        yield "seed", is_whole(self.seed), "a whole number"

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages that an edit of this recipe has, in order."""
        return ("edit",)

    @property
    def stage_steps(self) -> tuple[int, ...]:
        """Most steps of each stage; none for a method that takes no steps."""
        return ()

    def steps_of(self, stage: str) -> int:
        """Most steps of a stage, by its name; 0 where that is not known."""
        known = zip(self.stage_names, self.stage_steps, strict=False)
        return dict(known).get(stage, 0)

    def steps_done(self, stage: str, step: int) -> int:
        """How many steps of all are made when a stage has made so many."""
        before = self.stage_names[: self.stage_names.index(stage)]
        return sum(map(self.steps_of, before)) + min(step, self.steps_of(stage))

    @property
    def least_learned(self) -> float | None:
        """The probability that an edit must reach in its own training to count as learned; None where that is not
        looked at."""
        return None

    @property
    def closed_form(self) -> BaseRecipe | None:
        """The recipe of what the method solves for, all of the edit or its first stage; None where all is trained."""
        return None

    @property
    def answer_style(self) -> AnswerStyle:
        """How the taught answer is given: in the base's own sentence, or alone."""
        return "short"

    @classmethod
    def named(cls, name: str, **changes: Any) -> BaseRecipe:
        """A built-in recipe, with changes: ``Recipe.named("paper", seed=3)``.

        Raises:
            ValueError: An unknown name; the message lists the built-in ones and the nearest.
        """
        from workbench.editing.methods.table import named_recipe

        recipe = named_recipe(name)
        return recipe.from_dict({**recipe.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        return tuples_as_lists(asdict(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``.

        Raises:
            ValueError: An unknown setting, or a value out of range.
        """
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"Unknown recipe setting(s) {unknown}; allowed are {[f.name for f in fields(cls)]}.")
        return cls(**lists_as_tuples(data))


def stages_once_each(stages: object) -> bool:
    """Whether these are stages of training, one or both, each once."""
    if not (is_list(stages) or is_tuple(stages)):
        return False
    return bool(stages) and all(one in STAGES for one in stages) and len(set(stages)) == len(stages)


@dataclass(frozen=True, kw_only=True)
class TrainedRecipe(BaseRecipe):
    """What the methods share that train for some steps, stage by stage.

    ``unlearn`` teaches a refusal (or makes the old answer unlikely, see ``objective``), ``learn`` the fact's target
    (arXiv 2508.07075). The loss of a step is

        cross-entropy of the wanted answer (nats per token) + retain_weight * KL(base || edited) on retained answers,

    the first over the tokens that take the old answer's place (and the one after it, where the base would run on into
    the word), and only so far as it exceeds that of the probability ``hinge``: a prompt that is learned leaves the step
    to those that are not and to the retained answers.

    Args:
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
        learning_rate: Of the optimiser.
        warmup: Steps of linear warm-up in each stage.
        average: A stage gives the mean of its parameters over its last steps, so many of them (at most half): what is
            learned stays, and the noise of single steps, which harms retained answers, cancels out. They begin when
            ``early_stop`` is met, else so many steps before the end. 0 or 1 gives the last step's.
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

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.
    """

    panel_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="learning_rate", tip="Length of a step: larger moves more at once", low=0, above=True),
        Setting(
            name="retain_weight",
            tip="How strongly answers to other questions are held in place while it trains; 0 does not",
            low=0,
            high=1e6,
        ),
        SEED,
    )
    most_rate: ClassVar[float] = 3e37
    """The largest ``learning_rate``: the first step of AdamW is ten times it, which float32 has to hold."""

    stages: tuple[StageName, ...] = ("unlearn", "learn")
    objective: Objective = "cross-entropy"
    answers: AnswerStyle = "own"
    contexts: bool = True
    steps: int | tuple[int, ...] | None = None
    learning_rate: float = 0.03
    warmup: int = 2
    average: int = 0
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages) if is_list(self.stages) else self.stages)
        if not stages_once_each(self.stages):
            raise ValueError(f"stages must be one or both of {STAGES}, each at most once, got {self.stages!r}.")
        self._check_kinds()
        if self.objective != "cross-entropy" and "unlearn" not in self.stages:
            raise ValueError(
                f"objective={self.objective!r} is one of the unlearn stage, but the stages are {self.stages}; add "
                "'unlearn', or leave objective out."
            )
        if is_tuple(self.steps) and len(self.steps) != len(self.stages):
            raise ValueError(f"steps has {self.steps!r} for the stages {self.stages}; give one number per stage.")
        super().__post_init__()

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "steps", all(is_whole(s) and s >= 1 for s in self.stage_steps), "whole numbers from 1"
        yield "learning_rate", self.learning_rate > 0, "a positive number"
        yield (
            "learning_rate",
            self.learning_rate <= self.most_rate,
            f"at most {self.most_rate:g}: float32 must hold a step",
        )
        yield "warmup", is_whole(self.warmup) and self.warmup >= 0, "a whole number from 0"
        yield "average", is_whole(self.average) and self.average >= 0, "a whole number from 0"
        yield "batch_size", is_whole(self.batch_size) and self.batch_size >= 1, "a whole number from 1"
        yield "retain_weight", math.isfinite(self.retain_weight) and self.retain_weight >= 0, "0 or more"
        size, rows, wordings = self.retain_size, self.retain_batch_size, self.fisher_wordings
        yield "retain_size", is_whole(size) and size >= 0, "a whole number from 0"
        yield "retain_batch_size", is_whole(rows) and rows >= 1, "a whole number from 1"
        yield "fisher_wordings", is_whole(wordings) and wordings >= 1, "a whole number from 1"
        yield "end_below", math.isfinite(self.end_below) and self.end_below >= 0, "0 or more"
        yield "hinge", is_probability(self.hinge), "None or in (0, 1]"
        yield "early_stop", is_probability(self.early_stop), "None or in (0, 1]"

    def forgets(self, stage: StageName) -> bool:
        """Whether a stage makes the old answer unlikely, instead of teaching one."""
        return stage == "unlearn" and self.objective != "cross-entropy"

    @property
    def stage_names(self) -> tuple[str, ...]:
        """See ``BaseRecipe``."""
        return self.stages

    @property
    def stage_steps(self) -> tuple[int, ...]:
        """Most steps of each stage."""
        if self.steps is None:
            return tuple(DEFAULT_STEPS[stage] for stage in self.stages)
        return (self.steps,) * len(self.stages) if isinstance(self.steps, int) else tuple(self.steps)

    @property
    def answer_style(self) -> AnswerStyle:
        """See ``BaseRecipe``."""
        return self.answers

    def retains(self, stage: StageName) -> bool:
        """Whether a stage holds retained answers in place."""
        return self.retain_weight > 0

    @property
    def forgetting(self) -> str:
        """What forgets, as an error message begins."""
        return f"objective={self.objective!r}"

    @property
    def otherwise(self) -> str:
        """What to do where there is nothing to forget, as an error message ends."""
        return "leave objective out"

    @property
    def only_unforgotten(self) -> bool:
        """Whether a stage that forgets takes only the prompts that are not forgotten yet, asked before each pass."""
        return False

    @property
    def uses_fisher(self) -> bool:
        """Whether steps are measured by the Fisher information of retained answers."""
        return False

    @property
    def uses_retain(self) -> bool:
        """Whether retained facts are needed: for the KL term, to measure the Fisher information, or by the method."""
        return self.retain_weight > 0 or self.uses_fisher

    @property
    def fits_retained(self) -> bool:
        """Whether the fit reads their answers; else the method alone takes something from these facts, if any."""
        return self.uses_retain


def is_probability(value: float | None) -> bool:
    """Whether a threshold is None or in (0, 1]."""
    return value is None or 0 < value <= 1


def recipe_from_dict(method: str, data: Mapping[str, Any]) -> BaseRecipe:
    """A recipe of a method by its name, from what ``to_dict`` gave.

    Raises:
        ValueError: An unknown method or setting, or a value out of range.
    """
    from workbench.editing.methods.table import METHODS

    if method not in METHODS:
        raise ValueError(f"the method {method!r} is not known here; known are {list(METHODS)}.")
    return METHODS[method].recipe.from_dict(data)
