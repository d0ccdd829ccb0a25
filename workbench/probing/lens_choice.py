"""Which lens the lens probe reads through: the one that is closer to what the unedited model says, as measured.

Both lenses are judged on text that the tuned one was not fitted on, over the layers that the probe reads: all rows
before the last. The base's lens reads every stage, the control and the null, so that they differ in the model alone.
"""

from __future__ import annotations

from typing import get_args

from workbench.facts.retained import has_retained
from workbench.models.load import LoadedModel
from workbench.tracing.tuned_lens import tuned_lens
from workbench.types import FactSet, LensAsked, LensChoice, TunedLens
from workbench.types.cancelling import CancelFlag
from workbench.types.refused import RefusedValue

NOT_ASKED = "no tuned lens was asked for, so how close it is was not measured"


def check_asked(lens: str) -> None:
    """Raise a ValueError when this is no choice of a lens."""
    if lens not in get_args(LensAsked):
        message = f"lens must be one of {get_args(LensAsked)}, got {lens!r}."
        raise RefusedValue(message, name="lens", value=lens, allowed=list(get_args(LensAsked)))


def choose_lens(
    model: LoadedModel,
    asked: LensAsked,
    *,
    pool: FactSet | None = None,
    progress: bool = True,
    cancel: CancelFlag | None = None,
) -> tuple[LensChoice, TunedLens | None]:
    """Choose a lens, and fit the tuned one where it was not fitted before.

    Args:
        model: A base or edited model; the base is what both lenses are measured on.
        asked: ``"logit"`` fits nothing; ``"tuned"`` does not choose; ``"auto"`` takes the closer one, and the logit
            lens where no tuned one can be fitted.
        pool: As in ``tuned_lens``, if any of its facts may be retained; else the bundled facts are used.
        progress, cancel: As in ``tuned_lens``.

    Returns:
        The choice, and the tuned lens if it was chosen.

    Raises:
        ValueError: ``"tuned"``, and no tuned lens can be fitted.
        Cancelled: ``cancel`` was set while it was fitted.
    """
    if asked == "logit":
        return LensChoice(asked=asked, why=NOT_ASKED), None
    try:
        tuned = tuned_lens(model, pool=text_pool(pool), progress=progress, cancel=cancel)
    except ValueError as error:
        if asked == "tuned":
            raise
        return LensChoice(asked=asked, why=f"no tuned lens could be fitted: {str(error).rstrip('.')}"), None
    use = asked == "tuned" or tuned.better
    choice = LensChoice(
        asked=asked,
        kind="tuned" if use else "logit",
        kl=tuned.kl,
        logit_kl=tuned.logit_kl,
        held_out=tuned.held_out,
    )
    return choice, tuned if use else None


def text_pool(pool: FactSet | None) -> FactSet | None:
    """Where the facts of the tuned lens's texts come from: all pools without retained facts share one lens."""
    return pool if pool is not None and has_retained(pool) else None


def fits_first(model: LoadedModel, asked: LensAsked) -> str:
    """What is made before the first reading, in words; empty where nothing is, or it was made in this session."""
    made = asked == "logit" or len(model.base.cache.lenses)
    return "" if made else "fitting the tuned lens first (minutes, once a model)"
