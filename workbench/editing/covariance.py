"""What modules read in ordinary text, measured on the unedited model: the covariance that closed-form editors spare.

C = E[k k^T] is uncentred and a mean over tokens. Padding is left out, and so is what all texts begin with: a template's
system prompt would count once a text, always the same. A text's first token never counts: models park attention on it,
and its keys are many times as long as any others. The default texts need no network: the base's own replies to
questions of retained facts, and prose of the package's own (CC0), which no evaluation measures. Fewer tokens than
inputs leave directions in which nothing is spared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from workbench.editing.solved.keys import token_keys
from workbench.editing.solved.spots import Place, module_name, width_in
from workbench.facts.ordinary_texts import TextGroup, Texts, default_texts, given_texts, texts_hash
from workbench.files.atomic import write_bytes
from workbench.files.user_cache import cache_folder, warn_not_written
from workbench.models.load import LoadedModel
from workbench.types import FactSet
from workbench.types.cancelling import CancelFlag
from workbench.types.covariance import Covariance, OutputModule
from workbench.types.plain import check_count, is_whole
from workbench.types.torch_settings import own_torch_settings

MAX_TOKENS = 30_000


class TooFewTokens(ValueError):
    """A text with fewer tokens than a module has inputs."""


@own_torch_settings()
def covariance(
    model: LoadedModel,
    layer: int,
    module: OutputModule = "mlp",
    *,
    texts: Texts | None = None,
    pool: FactSet | None = None,
    max_tokens: int = MAX_TOKENS,
    min_tokens: int | None = None,
    progress: bool = True,
    cancel: CancelFlag | None = None,
) -> Covariance:
    """Measure C = E[k k^T] of what a layer's output projection reads, on the unedited model.

    Args:
        model: A model; of an edited one the base is measured.
        layer: The layer.
        module: ``"mlp"``: the neurons; ``"attn"``: the heads' entries.
        texts: Texts, or token ids, or groups of those that begin alike (``TextGroup``); None for the base's own
            replies to questions of retained facts and some prose. The first token of each does not count.
        pool: Where those facts come from; the bundled ones by default.
        max_tokens: Most tokens that are read.
        min_tokens: Fewer are refused; None for as many as the module has inputs.
        progress: Show a progress bar where the model has to be asked.
        cancel: Looked at between batches.

    Returns:
        C with its tokens, rank and condition number. It is remembered in ``model.cache`` and in the user's cache
        folder, by the model's fingerprint, the texts and ``max_tokens``.

    Raises:
        ValueError: A layer or module that the model lacks, ``max_tokens`` or ``min_tokens`` below 1, token ids that
            the model lacks, or too few tokens; the message has both numbers.
        Cancelled: ``cancel`` was set.

    Source: Meng et al. 2022 (2202.05262, 100,000 texts of Wikipedia). Deviation: other text, fewer tokens.

    Example:
        >>> covariance = wb.covariance(model, 1, "attn", texts=["The capital of France is Paris."] * 40)
        >>> covariance.tokens, covariance.d_in
        (240, 48)
    """
    options = {"texts": texts, "pool": pool, "max_tokens": max_tokens, "min_tokens": min_tokens}
    place = Place(layer, module)
    return covariances(model, [place], **options, progress=progress, cancel=cancel)[place]


@own_torch_settings()
def covariances(
    model: LoadedModel,
    places: Sequence[tuple[int, OutputModule]],
    *,
    texts: Texts | None = None,
    pool: FactSet | None = None,
    max_tokens: int = MAX_TOKENS,
    min_tokens: int | None = None,
    progress: bool = True,
    cancel: CancelFlag | None = None,
) -> dict[Place, Covariance]:
    """Measure the covariances of several modules in one pass over the texts. Arguments, errors and source as for
    ``covariance``.

    Args:
        places: (layer, module) each.

    Returns:
        One ``Covariance`` for each place, in the order given, a repeated place once.

    Example:
        >>> both = wb.covariances(model, [(1, "mlp"), (2, "mlp")], texts=["The capital of France is Paris."] * 40)
        >>> [one.layer for one in both.values()]
        [1, 2]
    """
    base = model.base
    wanted = [Place(*place) for place in dict.fromkeys(places)]
    check_count("max_tokens", max_tokens)
    if min_tokens is not None:
        check_count("min_tokens", min_tokens)
    for place in wanted:
        if not is_whole(place.layer):
            raise ValueError(f"layer must be a whole number, got {place.layer!r}.")
        if place.module not in ("mlp", "attn"):
            raise ValueError(f"module must be 'mlp' or 'attn', got {place.module!r}.")
    inputs = {place: width_in(base.hf, module_name(base.architecture, place)) for place in wanted}
    groups = (
        default_texts(base, pool, max_tokens, progress=progress, cancel=cancel)
        if texts is None
        else given_texts(base, texts, max_tokens)
    )
    tokens = sum(group.counted for group in groups)
    for place, d_in in inputs.items():
        least = d_in if min_tokens is None else min_tokens
        if tokens < least:
            raise TooFewTokens(
                f"The texts have {tokens} tokens, and the {place.module} of layer {place.layer} has {d_in} inputs: "
                f"with fewer than {least} tokens the covariance says nothing about most directions. Give more texts, "
                "raise max_tokens (covariance_tokens of a recipe), or lower min_tokens."
            )
    name = texts_hash(groups)
    found: dict[Place, Covariance] = {}
    for place in wanted:
        key = name, place
        known = base.cache.covariances.get(key) or _read(base, name, place, tokens, inputs[place])
        if known is not None:
            found[place] = base.cache.covariances.get_or_compute(key, lambda known=known: known)
    missing = [place for place in wanted if place not in found]
    if missing:
        for place, values in _measure(base, groups, missing, inputs, cancel).items():
            spectrum = torch.linalg.eigvalsh(values)
            options = {"tokens": tokens, "fingerprint": base.fingerprint, "texts": name, "spectrum": spectrum}
            made = Covariance(layer=place.layer, module=place.module, values=values, **options)
            found[place] = base.cache.covariances.get_or_compute((name, place), lambda made=made: made)
            _write(base, made)
    return {place: found[place] for place in wanted}


def _measure(
    model: LoadedModel,
    groups: Sequence[TextGroup],
    places: Sequence[Place],
    inputs: dict[Place, int],
    cancel: CancelFlag | None,
) -> dict[Place, Tensor]:
    sums = {place: torch.zeros(inputs[place], inputs[place], dtype=torch.float64) for place in places}
    waiting: dict[Place, list[Tensor]] = {place: [] for place in places}

    def add(place: Place) -> None:
        keys = torch.cat(waiting[place]).to("cpu", torch.float64)
        sums[place].addmm_(keys.T, keys)
        waiting[place].clear()

    def take(keys: dict[Place, Tensor]) -> None:
        for place, part in keys.items():
            waiting[place].append(part)
            if sum(map(len, waiting[place])) >= 2048:  # few large products are quicker than many small ones
                add(place)

    for group in groups:
        token_keys(model, group.texts, places, take, shared=group.shared, cancel=cancel)
    for place in places:
        if waiting[place]:
            add(place)
    tokens = sum(group.counted for group in groups)
    return {place: total / tokens for place, total in sums.items()}


def _path(model: LoadedModel, name: str, place: Place) -> Path:
    folder = cache_folder() / "covariances" / model.fingerprint[:16]
    return folder / f"{name}-L{place.layer}-{place.module}.safetensors"


def _read(model: LoadedModel, name: str, place: Place, tokens: int, d_in: int) -> Covariance | None:
    """What an earlier session measured; None where it did not, or the file is damaged."""
    path = _path(model, name, place)
    try:
        saved = safetensors.torch.load(path.read_bytes())
        values, spectrum = saved["covariance"], saved["eigenvalues"]
    except (OSError, SafetensorError, KeyError):
        return None
    if values.shape != (d_in, d_in) or spectrum.shape != (d_in,):
        return None
    options = {"tokens": tokens, "fingerprint": model.fingerprint, "texts": name, "spectrum": spectrum}
    return Covariance(layer=place.layer, module=place.module, values=values, **options)


def _write(model: LoadedModel, made: Covariance) -> None:
    path = _path(model, made.texts, Place(made.layer, made.module))
    tensors = {"covariance": made.values.contiguous(), "eigenvalues": made.eigenvalues.contiguous()}
    try:
        write_bytes(path, safetensors.torch.save(tensors))
    except OSError as error:
        warn_not_written(error)
