"""The tuned lens of a model: fitted when it is first asked for, and kept in the user's cache folder.

Method: Belrose et al. 2023 (arXiv 2303.08112), an affine map for each layer that is fitted to the model's own
prediction. Deviations: the maps begin at the least-squares solution (as Din et al. 2023, arXiv 2303.09435, fit theirs)
and take a few steps on the divergence from there, instead of many from the identity; and the texts are short.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import safetensors.torch
import torch
from safetensors import SafetensorError

from workbench.facts.ordinary_texts import Texts, default_texts, given_texts, texts_hash
from workbench.files.atomic import write_bytes
from workbench.files.user_cache import cache_folder, warn_not_written
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.lens_fit import STEPS, LensFit, split, work_of
from workbench.tracing.self_check import require
from workbench.types import FactSet, LensKind, TunedLens
from workbench.types.cancelling import CancelBar, CancelFlag, check_cancel
from workbench.types.plain import check_count
from workbench.types.torch_settings import own_torch_settings

MAX_TOKENS = 12_000
FITTING = "while its lens was fitted"
_VERSION = 2
"""Of how a lens is fitted. A file of another version is not read."""


@own_torch_settings()
def tuned_lens(
    model: LoadedModel,
    *,
    texts: Texts | None = None,
    pool: FactSet | None = None,
    max_tokens: int = MAX_TOKENS,
    steps: int = STEPS,
    seed: int = 0,
    progress: bool = True,
    cancel: CancelFlag | None = None,
) -> TunedLens:
    """Fit a tuned lens of the unedited model, or read it from the cache where it was fitted before.

    Args:
        model: A model; of an edited one the base's lens is fitted, and both are read through it.
        texts: As in ``covariance``; an eighth of them is held out. None for the base's own replies to questions of
            retained facts and some prose.
        pool: Where those facts come from; the bundled ones by default.
        max_tokens: Most tokens that are read.
        steps: Steps on the divergence after least squares; 0 for least squares alone.
        seed: Of the tokens that the steps and the judging see.
        progress: Show a progress bar.
        cancel: Looked at between batches and between layers.

    Returns:
        The lens, with its divergence on held-out texts beside the logit lens'. It is remembered in ``model.cache`` and
        in the user's cache folder, in float16, by the model's fingerprint, the texts and the other arguments.

    Raises:
        ValueError: One distinct text, so that none can be held out; fewer tokens to fit on than the model is wide; an
            argument out of range; or a model of which no lens can be read.
        Cancelled: ``cancel`` was set; nothing is kept.

    Source: Belrose et al. 2023 (2303.08112). Deviations: see the module.

    Example:
        >>> texts = [f"The capital of {a} is {b}." for a in ("France", "Japan") for b in ("Paris", "Rome", "Tokyo")]
        >>> tuned = wb.tuned_lens(model, texts=texts * 10, progress=False)
        >>> tuned.tokens, tuned.held_out, tuned.better
        (300, 6, True)
    """
    base = model.base
    check_count("steps", steps, least=0)
    require(base, "lens")
    options = (max_tokens, steps, seed)
    default = ("default", *options, pool and tuple(pool)) if texts is None else None
    known = None if default is None else base.cache.lenses.get(default)
    if known is not None:
        return known
    groups = (
        default_texts(base, pool, max_tokens, progress=progress, cancel=cancel)
        if texts is None
        else given_texts(base, texts, max_tokens)
    )
    tokens, width = sum(group.counted for group in split(groups)[0]), base.shape.d_model
    if tokens < width:
        raise ValueError(
            f"The texts that the lens is fitted on have {tokens} tokens, without those that are held out, and the "
            f"model is {width} wide: a map of a layer has more unknowns than that. Give more texts, or raise "
            "max_tokens."
        )
    key = (texts_hash(groups), *options)
    lens = base.cache.lenses.get(key) or _read(base, key)
    if lens is None:
        from tqdm.auto import tqdm

        check_cancel(cancel, FITTING)
        bar = tqdm(desc="Fitting the tuned lens", total=work_of(base, groups), disable=not progress)
        with bar, pooled_engine(Resumable, base) as engine:
            fit = LensFit(base, engine, CancelBar(cancel, FITTING, bar)).fitted(groups, steps=steps, seed=seed)
        lens = TunedLens(**vars(fit), fingerprint=base.fingerprint, texts=key[0])
        _write(base, key, lens)
    for name in (key, default):
        if name is not None:
            lens = base.cache.lenses.get_or_compute(name, lambda lens=lens: lens)
    return lens


def lens_of(model: LoadedModel, kind: LensKind | TunedLens) -> TunedLens | None:
    """What states go through before the last norm: a model's tuned lens, or nothing for the logit lens.

    Args:
        model: A base or edited model.
        kind: As in ``lens``.

    Raises:
        ValueError: An unknown kind, or the lens of another model.
    """
    if isinstance(kind, TunedLens):
        if kind.fingerprint not in ("", model.base.fingerprint):
            raise ValueError(
                f"This tuned lens was fitted on another model (fingerprint {kind.fingerprint[:12]}, and "
                f"{model.base.name} has {model.base.fingerprint[:12]}). Fit one for this model: wb.tuned_lens(model)."
            )
        return kind
    if kind not in get_args(LensKind):
        raise ValueError(f"kind must be one of {get_args(LensKind)} or a TunedLens, got {kind!r}.")
    return tuned_lens(model) if kind == "tuned" else None


def _path(model: LoadedModel, key: tuple[Any, ...]) -> Path:
    name = "-".join(map(str, (*key, f"v{_VERSION}")))
    return cache_folder() / "lenses" / model.fingerprint[:16] / f"{name}.safetensors"


def _read(model: LoadedModel, key: tuple[Any, ...]) -> TunedLens | None:
    """What an earlier session fitted; None where it did not, the file is damaged, or is of a model of another shape."""
    layers, width = model.shape.n_layers, model.shape.d_model
    shapes = {"weights": (layers, width, width), "biases": (layers, width), "kl": (layers + 1,)}
    try:
        saved = safetensors.torch.load(_path(model, key).read_bytes())
        if any(tuple(saved[name].shape) != shape for name, shape in (shapes | {"logit_kl": shapes["kl"]}).items()):
            return None
        tokens, held_out = saved["counts"].tolist()
        return TunedLens(
            weights=saved["weights"],
            biases=saved["biases"],
            kl=tuple(saved["kl"].tolist()),
            logit_kl=tuple(saved["logit_kl"].tolist()),
            tokens=tokens,
            held_out=held_out,
            fingerprint=model.fingerprint,
            texts=key[0],
        )
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _write(model: LoadedModel, key: tuple[Any, ...], lens: TunedLens) -> None:
    tensors = {
        "weights": lens.weights.contiguous(),
        "biases": lens.biases.contiguous(),
        "kl": torch.tensor(lens.kl, dtype=torch.float64),
        "logit_kl": torch.tensor(lens.logit_kl, dtype=torch.float64),
        "counts": torch.tensor([lens.tokens, lens.held_out]),
    }
    try:
        write_bytes(_path(model, key), safetensors.torch.save(tensors))
    except OSError as error:
        warn_not_written(error)
