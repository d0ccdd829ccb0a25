"""Loading a model: the pristine HF model, its tokenizer, its fingerprint, and a TransformerLens bridge when asked."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Hashable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.bundled import NAME, bundled_file, load_gguf
from workbench.models.cache import EnginePool, ModelCache
from workbench.models.deltas import fold
from workbench.models.families import Architecture, read_architecture
from workbench.models.quiet import no_loading_bars
from workbench.models.views import shared_view
from workbench.types import NO_DELTA, Delta, Edit, ModelShape


@dataclass(frozen=True)
class AppliedEdit:
    """Which edit a model carries, up to which stage and how strongly."""

    edit: Edit
    stage: str
    strength: float


class LoadedModel:
    """A language model to look into and to edit. Made by ``load_model``; edited ones by ``applied``.

    The wrapped HF model is never changed by any function of this package: everything runs on structure copies that
    share its weights.

    Attributes:
        hf: The pristine HF model (for an edited model: a copy that shares the weights and carries the delta).
        tokenizer: Its tokenizer.
        name: What it is called in results.
        architecture: Its shape and module names.
        applied: The edits it carries, first to last; empty for a base model.
        delta: What they add to the base together; it changes nothing for a base model.
        cache: What was computed with it, while its weights stay as they are. A copy begins with an empty one.

    Example:
        >>> model
        LoadedModel('tiny', 3 layers, 6 heads in 2 key-value groups, d_model 42, d_mlp 56, float32 on cpu)
        >>> with wb.applied(model, edit) as edited:
        ...     print(edited.edited, edited.base is model, edited.delta.words())
        True True 368 gates moved
    """

    def __init__(
        self,
        hf: Any,
        tokenizer: Any,
        *,
        name: str,
        architecture: Architecture | None = None,
        base: LoadedModel | None = None,
        applied: tuple[AppliedEdit, ...] = (),
        delta: Delta = NO_DELTA,
        engines: EnginePool | None = None,
    ) -> None:
        self.hf = hf
        self.tokenizer = tokenizer
        self.name = name
        self.architecture = architecture or read_architecture(hf)
        self.applied = applied
        self._base = base
        self.delta = delta
        self._bridge: Any = None
        self._runner: Any = None
        self._fingerprint: tuple[Hashable, str] | None = None
        self.cache = ModelCache(self, engines)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "cache"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _fingerprint=None)
        self.cache = ModelCache(self)

    @property
    def base(self) -> LoadedModel:
        """The unedited model (itself for a base model)."""
        return self._base or self

    @property
    def edited(self) -> bool:
        """Whether this is a changed view of another model: one that carries edits, or was tuned to compare with."""
        return self._base is not None

    @property
    def shape(self) -> ModelShape:
        """Layers, heads and sizes."""
        return self.architecture.shape

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return next(self.hf.parameters()).dtype

    @property
    def chat_template(self) -> str | None:
        """The tokenizer's chat template, or None."""
        return getattr(self.tokenizer, "chat_template", None)

    @property
    def runner(self) -> Any:
        """The HF model to compute with: in eval mode, without gradients, sharing the weights of ``hf``."""
        if self._runner is None:
            self._runner = self.hf if self.edited else shared_view(self.hf)
        return self._runner

    @property
    def bridge(self) -> Any:
        """A TransformerLens ``TransformerBridge`` over a structure copy that shares the weights; built when asked. That
        of an edited model has weights of its own where the edit changes them: its ``W_O``, ``W_out`` and the like are
        the edited ones, and a gate on a module's input is part of them (``hook_z`` is before the gate).

        It prepends the BOS token to strings by default: pass token ids.

        Raises:
            ValueError: Its logits are not the model's, so that all that it shows would be of another model.
        """
        if self._bridge is None:
            from transformer_lens.model_bridge import TransformerBridge

            view = shared_view(self.base.hf)
            # Of a model made in memory the configuration names no class, by which TransformerLens knows it.
            view.config.architectures = view.config.architectures or [type(view).__name__]
            # Folded in, so that the bridge's weights are the edited ones: of a wrapped module TransformerLens guesses
            # the layout by its shape, and a square projection comes out transposed.
            fold(view, self.architecture, self.delta)
            tokenizer = copy.deepcopy(self.tokenizer)
            # With these, TransformerLens takes it as it is; else it would load its files again, perhaps from the hub.
            tokenizer.init_kwargs |= {"name_or_path": "", "add_bos_token": True}
            bridge = TransformerBridge.boot_transformers(self.name, hf_model=view, tokenizer=tokenizer)
            _check_bridge(self, bridge)
            self._bridge = bridge
        return self._bridge

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes of all weights; for an edited model over base, edit, stage and
        strength. Computed once, and again after an in-place change of the weights."""
        if self.applied:
            digest = hashlib.sha256(self.base.fingerprint.encode())
            for a in self.applied:
                digest.update(f"{a.edit.id}|{a.stage}|{a.strength!r}".encode())
            return digest.hexdigest()
        written = self._written()
        if self._fingerprint is None or self._fingerprint[0] != written:
            self._fingerprint = (written, _hash_tensors(dict(sorted(self.hf.state_dict().items()))))
        return self._fingerprint[1]

    def _written(self) -> Hashable:
        """Where each weight lies, and how often it was written in place."""
        return tuple((t.data_ptr(), t._version) for t in self.hf.state_dict(keep_vars=True).values())

    @property
    def version(self) -> Hashable:
        """Changes when a weight is replaced or written in place (not through ``.data``), or the model attends by
        another implementation. Cheap, unlike ``fingerprint``, and worth nothing outside this process."""
        return getattr(self.hf.config, "_attn_implementation", None), self._written()

    def token_ids(self, text: str) -> list[int]:
        """Tokenise a text exactly as written: no special tokens are added.

        Example:
            >>> ids = model.token_ids(" Paris")
            >>> model.tokenizer.convert_ids_to_tokens(ids)
            ['ĠParis']
        """
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def __repr__(self) -> str:
        s = self.shape
        edited = "".join(f", edited ({a.stage} at {a.strength:g})" for a in self.applied)
        return (
            f"LoadedModel({self.name!r}{edited}, {s.n_layers} layers, {s.n_heads} heads in {s.n_kv_heads} key-value "
            f"groups, d_model {s.d_model}, d_mlp {s.d_mlp}, {str(self.dtype).removeprefix('torch.')} on {self.device})"
        )


def _check_bridge(model: LoadedModel, bridge: Any) -> None:
    """Raise a ValueError where a bridge computes something else than its model."""
    ids = torch.arange(1, 17, device=model.device).view(2, 8) % model.shape.d_vocab
    with torch.no_grad():
        own = model.runner(input_ids=ids, use_cache=False).logits.float()
        theirs = bridge.run_with_hooks(ids, fwd_hooks=[]).float()
    off, scale = float((own - theirs).abs().max()), float(own.abs().max())
    if not off <= (1e-3 if model.dtype in (torch.float32, torch.float64) else 0.1) * max(scale, 1.0):
        raise ValueError(
            f"The TransformerLens bridge of {type(model.hf).__name__} gives other logits than the model itself: they "
            f"differ by up to {off:.3g}, where the largest is {scale:.3g}."
        )


def _hash_tensors(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if key in seen:  # tied weights count once
            continue
        seen.add(key)
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        data = tensor.detach().to("cpu").contiguous().flatten()
        digest.update(data.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_model(
    source: str | Path | nn.Module | None = None,
    *,
    tokenizer: Any = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
    name: str | None = None,
) -> LoadedModel:
    """Load a language model.

    Args:
        source: None for the bundled SmolLM2-135M-Instruct (converted once, then about 1 s); a local folder; a ``.gguf``
            file; an HF causal language model in memory (with ``tokenizer``); or a hub id, the only case in which the
            network may be used.
        tokenizer: A tokenizer, or a folder or hub id to load it from; by default the model's own.
        device: Where to put the model (default: where it is, CPU for files). Not for a model in memory.
        dtype: The weights' dtype (default float32). Not for a model in memory.
        trust_remote_code: Run code that a hub repository brings along. Off unless asked for.
        name: What to call the model in results.

    Returns:
        The model, ready for every function of the package.

    Raises:
        FileNotFoundError: The bundled model is not installed (with the command that installs it), or no such file.
        ValueError: A damaged or foreign file, an unsupported family, or a missing tokenizer.
        TypeError: A source of another type.

    Example:
        >>> folder = wb.export_base("base", model)
        >>> wb.load_model(folder, name="capitals")
        LoadedModel('capitals', 3 layers, 6 heads in 2 key-value groups, d_model 42, d_mlp 56, float32 on cpu)
    """
    if isinstance(source, nn.Module):
        return _from_memory(source, tokenizer, device, dtype, name)
    if source is not None and not isinstance(source, (str, Path)):
        raise TypeError(
            f"source must be None, a folder, a .gguf file, a hub id or an HF model, got {type(source).__name__}."
        )
    if source is None:
        hf, own = load_gguf(bundled_file())
        label = NAME
    elif str(source).endswith(".gguf"):
        hf, own = load_gguf(Path(source))
        label = Path(source).stem
    else:
        hf, own = _from_pretrained(source, tokenizer, dtype, trust_remote_code)
        label = Path(source).name if Path(source).is_dir() else str(source)
    if isinstance(tokenizer, (str, Path)):
        own = _tokenizer(tokenizer, trust_remote_code)
    elif tokenizer is not None:
        own = tokenizer
    hf = hf.to(device=device, dtype=dtype or torch.float32).eval()
    for parameter in hf.parameters():
        parameter.requires_grad_(False)
    return LoadedModel(hf, own, name=name or label)


def _from_memory(hf: nn.Module, tokenizer: Any, device: Any, dtype: Any, name: str | None) -> LoadedModel:
    if tokenizer is None:
        raise ValueError("A model in memory needs its tokenizer: load_model(hf_model, tokenizer=...).")
    if device is not None or dtype is not None:
        raise ValueError("A model in memory stays as it is: move or cast it yourself before load_model.")
    if not hasattr(hf, "generate") or type(hf).__module__.startswith(("transformer_lens", "peft")):
        raise TypeError(
            f"Expected a plain HF causal language model, got {type(hf).__name__} from {type(hf).__module__}. Pass the "
            "HF model itself: bridges are made from it, and adapters must be merged first."
        )
    label = name or getattr(hf.config, "name_or_path", "") or type(hf).__name__
    return LoadedModel(hf, tokenizer, name=str(label))


def _tokenizer(source: str | Path, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    local = Path(source).is_dir()
    try:
        return AutoTokenizer.from_pretrained(source, local_files_only=local, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot load a tokenizer from {str(source)!r}: {error}") from error


def _from_pretrained(source: str | Path, tokenizer: Any, dtype: Any, trust_remote_code: bool) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = Path(source).is_dir()
    if not local and (Path(source).is_absolute() or str(source).startswith((".", "~"))):
        raise FileNotFoundError(f"There is no folder {source}.")
    options = {"local_files_only": local, "trust_remote_code": trust_remote_code}
    try:
        with no_loading_bars() if local else nullcontext():  # a download has bars
            hf = AutoModelForCausalLM.from_pretrained(source, dtype=dtype or torch.float32, **options)
        own = AutoTokenizer.from_pretrained(source, **options) if tokenizer is None else None
    except (OSError, ValueError) as error:
        kind = "folder" if local else "hub id (there is no folder of that name)"
        raise ValueError(f"Cannot load {str(source)!r} as a {kind}: {error}") from error
    return hf, own
