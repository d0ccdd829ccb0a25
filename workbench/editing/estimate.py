"""Time and memory of traces, attributions and fits, from a model's configuration: no weights are loaded.

The model is built on torch's meta device, so that every parameter is counted where the family puts it. Operations are
those of linear maps and attention, counted as the fast paths compute them and never too few: a trace's cells from their
layer and position on, a backward pass as dear as the forward pass (the weights are frozen), a fit's rows from the
lowest layer on. ``benchmarks/memory.py`` measures the memory beside the estimate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from workbench.editing.methods.ia3 import IA3
from workbench.editing.training.batching import MANY_TOKENS, PART_TOKENS
from workbench.files.paths import user_path
from workbench.language.generation import MAX_NEW_TOKENS
from workbench.models.dtypes import DTYPES, read_dtype
from workbench.models.families import Architecture, read_architecture
from workbench.models.layerwise import bytes_in_layer, row_bytes
from workbench.models.load import LoadedModel
from workbench.models.refusals import ModelRefused
from workbench.tracing.restore import LEAST_ROWS, ROWS
from workbench.types import ModelShape
from workbench.types.estimate import Estimate, EstimatedWork
from workbench.types.recipe import TrainedRecipe
from workbench.types.torch_settings import own_torch_settings

ANSWER_TOKENS = 6
"""Tokens of an answer that a fit's row counts, about."""
LOGITS_AT_ONCE = 2**23
"""Numbers of logits that a trace holds at once."""


@dataclass(frozen=True)
class _Model:
    """What is counted of a model: its shape, and the sizes of its matrices."""

    name: str
    shape: ModelShape
    n_parameters: int
    in_layers: int
    dtype: torch.dtype

    def through(self, tokens: float, total: int) -> float:
        """Operations of tokens through all layers, each with attention to a text of so many."""
        attention = 4 * self.shape.n_layers * self.shape.n_heads * self.shape.d_head * total
        return tokens * (2 * self.in_layers + attention)

    def heads(self, tokens: float) -> float:
        """Operations of the logits of so many tokens."""
        return tokens * 2 * self.shape.d_vocab * self.shape.d_model

    def answer(self, tokens: int) -> float:
        """Operations of reading a text and answering greedily."""
        return self.through(tokens + MAX_NEW_TOKENS, tokens + MAX_NEW_TOKENS) + self.heads(MAX_NEW_TOKENS)


@own_torch_settings()
def estimate(
    source: Any,
    what: EstimatedWork = "trace",
    *,
    tokens: int = 32,
    changed: int | None = None,
    samples: int | None = None,
    recipe: TrainedRecipe | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device = "cpu",
    speed: float | None = None,
) -> Estimate:
    """Estimate time and memory of a computation, without a model's weights.

    Args:
        source: A model: its configuration (of transformers), a folder or hub id (only the configuration is read), or a
            model in memory.
        what: ``"trace"`` (``causal_trace`` of one fact at one site), ``"attribute"`` (``attribute`` of one fact by one
            backward pass), or ``"fit"`` (``rewrite`` of one fact with given components, all steps of the recipe).
        tokens: Tokens of the text, chat template included.
        changed: Those from the first one of the subject on; None for all, which is the most that it can be.
        samples: Noise samples; by default those of the function (10 and 4).
        recipe: The fit's; by default ``wb.recipes.IA3()``.
        dtype: The weights', as in ``load_model``: None is float32, ``"auto"`` the configuration's own.
        device: Where it would be computed: batches are larger on an accelerator.
        speed: Operations a second of a large matrix product there; None measures it now, on this machine.

    Returns:
        The estimate; ``print`` shows it in words.

    Raises:
        ValueError: Unknown work, numbers out of range, a model of no supported family, or no configuration.

    Source: operations are counted as in Kaplan et al. 2020 (2001.08361), table 1, with attention.

    Example:
        >>> from transformers import Phi3Config
        >>> wb.estimate(Phi3Config(), "attribute", dtype="bfloat16", speed=1e12).weights_bytes / 1e9
        7.642159104
    """
    _check(what, tokens, changed, samples, speed)
    model = _model_of(source, dtype)
    where = torch.device(device)
    changed = tokens if changed is None else changed
    if what == "trace":
        counted, operations, working = _trace(model, tokens, changed, samples or 10, where)
    elif what == "attribute":
        counted, operations, working = _attribution(model, tokens, changed, samples or 4)
    else:
        counted, operations, working = _fit(model, tokens, recipe or IA3(), where)
    return Estimate(
        what=what,
        model=model.name,
        n_parameters=model.n_parameters,
        dtype=str(model.dtype).removeprefix("torch."),
        weights_bytes=model.n_parameters * model.dtype.itemsize,
        working_bytes=int(working),
        operations=operations,
        speed=_measured_speed(model.dtype, where) if speed is None else speed,
        counted=counted,
    )


def _check(what: str, tokens: int, changed: int | None, samples: int | None, speed: float | None) -> None:
    if what not in get_args(EstimatedWork):
        raise ValueError(f"what must be one of {get_args(EstimatedWork)}, got {what!r}.")
    for name, value in {"tokens": tokens, "changed": changed, "samples": samples, "speed": speed}.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be more than 0, got {value!r}.")
    if changed is not None and changed > tokens:
        raise ValueError(f"changed counts tokens of the text, so it is at most {tokens} (tokens=), got {changed}.")


# What a model is


def _model_of(source: Any, dtype: str | torch.dtype | None) -> _Model:
    from transformers import AutoModelForCausalLM, PreTrainedConfig

    if isinstance(source, LoadedModel):
        chosen = source.dtype if dtype is None else _dtype(dtype, source.hf.config)
        return _counted(source.base.hf, source.name, chosen, source.architecture)
    if isinstance(source, nn.Module):
        own = next(source.parameters()).dtype
        return _counted(source, type(source).__name__, own if dtype is None else _dtype(dtype, source.config))
    config = source if isinstance(source, PreTrainedConfig) else _configuration(source)
    try:
        with torch.device("meta"):
            hf = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise ValueError(f"transformers has no causal language model for {type(config).__name__}: {error}") from error
    name = getattr(config, "name_or_path", "") or type(config).__name__.removesuffix("Config")
    return _counted(hf, str(name), _dtype(dtype, config))


def _configuration(source: Any) -> Any:
    from transformers import AutoConfig

    if not isinstance(source, (str, Path)):
        raise ModelRefused(
            "source must be a configuration of transformers, a folder, a hub id or a model, got "
            f"{type(source).__name__}."
        )
    path = user_path(source)
    options: dict[str, Any] = {"local_files_only": path.exists()}
    if path.suffix.lower() == ".gguf":
        options["gguf_file"], path = path.name, path.parent
    try:
        return AutoConfig.from_pretrained(path if path.exists() else source, **options)
    except Exception as error:  # a damaged file ends in errors of json; the user needs to know which file
        raise ValueError(f"Cannot read a configuration from {str(source)!r}: {error}") from error


def _dtype(dtype: str | torch.dtype | None, config: Any) -> torch.dtype:
    chosen = read_dtype(dtype)
    if chosen != "auto":
        return chosen
    own = getattr(config, "dtype", None)
    return DTYPES.get(str(own).removeprefix("torch."), torch.float32)


def _counted(hf: Any, name: str, dtype: torch.dtype, architecture: Architecture | None = None) -> _Model:
    architecture = architecture or read_architecture(hf)
    layers = hf.get_submodule(architecture.family.layers)
    return _Model(
        name=name,
        shape=architecture.shape,
        n_parameters=sum(p.numel() for p in hf.parameters()),
        in_layers=sum(p.numel() for p in layers.parameters() if p.ndim >= 2),
        dtype=dtype,
    )


# What work takes: in words, operations, bytes


def _trace(model: _Model, tokens: int, changed: int, samples: int, device: torch.device) -> tuple[str, float, float]:
    shape = model.shape
    n_cells = shape.n_layers * changed
    # A cell at layer l and position p goes through the layers above and the tokens from there on: about half of each.
    through = samples * (shape.n_layers + 1) / 2 * changed * (changed + 1) / 2
    operations = model.answer(tokens) + model.through(tokens + samples * changed + through, tokens)
    operations += model.heads(1 + samples + samples * n_cells)
    rows = max(LEAST_ROWS, ROWS[device.type != "cpu"])
    logits = min(rows * shape.d_vocab, LOGITS_AT_ONCE) * (2 * model.dtype.itemsize + 4)
    recorded = (samples * changed + 2 * tokens) * row_bytes(shape, tokens, model.dtype.itemsize)
    # Twice: what a layer is given, and what it gives with the copies into which clean states are put.
    in_sweep = 2 * rows * bytes_in_layer(shape, tokens, model.dtype.itemsize)
    counted = f"{n_cells} cells of {samples} noise samples, from each cell's layer and token on"
    return counted, operations, recorded + in_sweep + logits


def _attribution(model: _Model, tokens: int, changed: int, samples: int) -> tuple[str, float, float]:
    shape = model.shape
    rows = samples * changed
    operations = model.answer(tokens) + model.through(tokens + 2 * rows, tokens) + model.heads(1 + 2 * samples)
    graph = rows * shape.n_layers * bytes_in_layer(shape, tokens, model.dtype.itemsize)
    recorded = 2 * tokens * row_bytes(shape, tokens, model.dtype.itemsize)
    counted = f"a clean pass, and {samples} noise samples forward and backward"
    return counted, operations, graph + recorded + 3 * samples * shape.d_vocab * 4


def _fit(model: _Model, tokens: int, recipe: TrainedRecipe, device: torch.device) -> tuple[str, float, float]:
    shape, steps = model.shape, sum(recipe.stage_steps)
    rows = recipe.batch_size + recipe.retain_batch_size
    trained = steps * rows + recipe.retain_size  # the latter for the Fisher information
    operations = recipe.retain_size * model.answer(tokens) + 2 * model.through(trained * tokens, tokens)
    operations += model.heads(3 * trained * ANSWER_TOKENS)  # forward, backward, and the base's for what is retained
    part = min(PART_TOKENS.get(device.type, MANY_TOKENS), rows * tokens)
    graph = part * shape.n_layers * bytes_in_layer(shape, tokens, model.dtype.itemsize)
    logits = 4 * max(1, part // tokens) * ANSWER_TOKENS * shape.d_vocab * 4
    kept = (recipe.retain_size + 2 * rows) * tokens * shape.d_model * model.dtype.itemsize
    fisher = recipe.retain_size * shape.n_layers * shape.d_mlp * 4
    counted = f"{steps} steps of {rows} rows, and {recipe.retain_size} retained answers asked and measured"
    return counted, operations, graph + logits + kept + fisher


def _measured_speed(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of a matrix product of 512 rows; the best of three, after one that warms up."""
    width = 1024
    left, right = (torch.ones(n, width, dtype=dtype, device=device) for n in (512, width))

    def took() -> float:
        began = time.perf_counter()
        float((left @ right).sum())  # waits for an accelerator
        return time.perf_counter() - began

    took()
    return 2 * 512 * width * width / min(took() for _ in range(3))
