"""Loading a model: the pristine HF model, its tokenizer, its fingerprint, and a TransformerLens bridge when asked."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.files.paths import whole_path
from workbench.models.cache import EnginePool, ModelCache
from workbench.models.deltas import fold
from workbench.models.dtypes import read_dtype
from workbench.models.families import Architecture, best_effort, read_architecture
from workbench.models.fingerprint import fingerprint_of
from workbench.models.layout import changed_in, layout_of
from workbench.models.refusals import ModelRefused
from workbench.models.sources import Placing, from_memory, from_source, own_tokenizer
from workbench.models.template_options import checked_options
from workbench.models.views import shared_view, warn_of_hooks
from workbench.types import NO_DELTA, Delta, Edit, ModelShape, Support
from workbench.types.earlier import fingerprint_with
from workbench.types.plain import check_text
from workbench.types.torch_settings import own_torch_settings


@dataclass(frozen=True)
class AppliedEdit:
    """Which edit a model carries, up to which stage and how strongly."""

    edit: Edit
    stage: str
    strength: float


@dataclass(frozen=True)
class Origin:
    """How a model was loaded from files, so that another process can load it too.

    Args:
        source: As ``load_model`` takes it; a folder or file by its whole path.
        options: Of ``load_model``.
        version: Of the weights as they were loaded (``LoadedModel.version``).
    """

    source: str | None
    options: Mapping[str, Any]
    version: Hashable


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
        template: Options of its chat template, by name (``"system"``: a system prompt). An edited model has its base's.
        origin: How it was loaded from files; None for one that was made in memory, and for an edited one.
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
        template: Mapping[str, Any] | None = None,
        untested: bool = False,
    ) -> None:
        self.hf = hf
        self.tokenizer = tokenizer
        self.name = name
        self.architecture = architecture or (best_effort(hf) if untested else read_architecture(hf))
        self.applied = applied
        self._base = base
        self.delta = delta
        self.template = base.template if base is not None else checked_options(template, self.chat_template, name)
        self.origin: Origin | None = None
        self._bridge: tuple[Hashable, Any] | None = None
        self._runner: tuple[Hashable, Any] | None = None
        self._layout = layout_of(self.base.hf)
        self._base_tensors = None if base is None else base.tensors
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
    def context(self) -> str:
        """The text that its edits put before what it is asked, which the prompt layer adds; empty for most."""
        return "\n\n".join(self.delta.context)

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
    def support(self) -> Support:
        """What the self-check of the base model found: whether noise, direct effects, traces, resumed passes, the lens
        and gates give what plain forward passes give. Made when asked, in about a second, and then remembered;
        functions make the checks that they rest on by themselves, and raise where one fails.

        Example:
            >>> model.support
            Support('tiny', Llama, tested family: all 8 checks passed)
        """
        from workbench.tracing.self_check import self_check

        return self_check(self)

    @property
    def runner(self) -> Any:
        """The HF model to compute with: in eval mode, without gradients, sharing the weights of ``hf``.

        Raises:
            ValueError: The model was changed after it was loaded, other than by other values of its weights.
        """
        if self.edited:
            self._check_unchanged()
            return self.hf
        tensors = self._checked_tensors()
        if self._runner is None or self._runner[0] != tensors:
            with own_torch_settings():
                warn_of_hooks(self.hf)
                self._runner = tensors, shared_view(self.hf)
        return self._runner[1]

    @property
    def bridge(self) -> Any:
        """A TransformerLens ``TransformerBridge`` over a structure copy that shares the weights; built when asked. That
        of an edited model has weights of its own where the edit changes them: its ``W_O``, ``W_out`` and the like are
        the edited ones, and a gate on a module's input is part of them (``hook_z`` is before the gate). A memory is in
        no weight; it acts between a module's input and its output.

        It prepends the BOS token to strings by default: pass token ids.

        Raises:
            ValueError: Its logits are not the model's, so that all that it shows would be of another model.
        """
        tensors = self._checked_tensors()
        if self._bridge is None or self._bridge[0] != tensors:
            with own_torch_settings():
                self._bridge = tensors, self._new_bridge()
        return self._bridge[1]

    def _new_bridge(self) -> Any:
        from transformer_lens.model_bridge import TransformerBridge

        view = shared_view(self.base.hf)
        # Of a model made in memory the configuration names no class, by which TransformerLens knows it.
        view.config.architectures = view.config.architectures or [type(view).__name__]
        # Folded in, so that the bridge's weights are the edited ones: of a wrapped module TransformerLens guesses the
        # layout by its shape, and a square projection comes out transposed.
        fold(view, self.architecture, self.delta)
        tokenizer = copy.deepcopy(self.tokenizer)
        # With these, TransformerLens takes it as it is; else it would load its files again, perhaps from the hub.
        tokenizer.init_kwargs |= {"name_or_path": "", "add_bos_token": True}
        bridge = TransformerBridge.boot_transformers(self.name, hf_model=view, tokenizer=tokenizer)
        _check_bridge(self, bridge)
        return bridge

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes of all weights, and over what the configuration says of how they
        are used (rotary embeddings, windows, activations, ...); for an edited model over base, edit, stage and
        strength. Computed once, and again after an in-place change of the weights."""
        if self.applied:
            return fingerprint_with(self.base.fingerprint, ((a.edit.id, a.stage, a.strength) for a in self.applied))
        written = self._written()
        if self._fingerprint is None or self._fingerprint[0] != written:
            self._fingerprint = (written, fingerprint_of(self.hf))
        return self._fingerprint[1]

    @property
    def tensors(self) -> Hashable:
        """Where each weight lies."""
        return tuple(tensor.data_ptr() for tensor in self.hf.state_dict(keep_vars=True).values())

    def _written(self) -> Hashable:
        """Where each weight lies, and how often it was written in place: torch does not count that of weights made in
        inference mode, which only inference mode can write."""
        tensors = self.hf.state_dict(keep_vars=True).values()
        return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)

    def _checked_tensors(self) -> Hashable:
        """``tensors`` of a model that is otherwise as it was when it was loaded."""
        self._check_unchanged()
        return self.tensors

    def _check_unchanged(self) -> None:
        """Raise a ValueError where a model is another one than was loaded, or an edited one no longer its base's."""
        changed = changed_in(self._layout, layout_of(self.base.hf))
        if changed is not None:
            raise ValueError(
                f"The model {self.base.name!r} was changed after it was loaded: {changed}. Load what it is now as "
                "another model: load_model(model.hf, tokenizer=model.tokenizer)."
            )
        if self._base_tensors is not None and self._base_tensors != self.base.tensors:
            raise ValueError(
                f"The weights of {self.base.name!r} were replaced after this edit was applied to it: apply it again."
            )

    @property
    def version(self) -> Hashable:
        """Changes when a weight is replaced or written in place (not through ``.data``), or the model attends by
        another implementation. Cheap, unlike ``fingerprint``, and worth nothing outside this process.

        Raises:
            ValueError: The model was changed after it was loaded, other than by other values of its weights.
        """
        self._check_unchanged()
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


@own_torch_settings()
def load_model(
    source: str | Path | nn.Module | None = None,
    *,
    tokenizer: Any = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: Any = None,
    trust_remote_code: bool = False,
    name: str | None = None,
    template: Mapping[str, Any] | None = None,
    untested: bool = False,
) -> LoadedModel:
    """Load a language model.

    Every weight of it comes from the checkpoint: one that lacks some, or holds others than the model has, is refused.

    Args:
        source: None for the bundled SmolLM2-135M-Instruct (converted once, then about 1 s); a local folder; a ``.gguf``
            file; an HF causal language model in memory (with ``tokenizer``); or a hub id, the only case in which the
            network may be used.
        tokenizer: A tokenizer, or a folder or hub id to load it from; by default the model's own.
        device: Where to put the model (default: where it is, CPU for files). Not for a model in memory.
        dtype: The weights' dtype: ``"float32"`` (the default), ``"bfloat16"``, ``"float16"``, ``"float64"``, the same
            of torch, or ``"auto"``, which is the checkpoint's own. Gates and what else is trained are float32 in any
            case. Not for a model in memory.
        device_map: Where accelerate puts the parts of the model, as transformers takes it: ``"auto"``, or a dict of
            modules and devices. All weights must stay in memory. Not for a model in memory, which may have been loaded
            with one.
        trust_remote_code: Run code that a hub repository brings along. Off unless asked for.
        name: What to call the model in results.
        template: Options of the chat template, by name: ``"system"`` for a system prompt, and whatever the template
            looks at (``{"enable_thinking": True}``). Thoughts are off where the template knows ``enable_thinking``,
            unless it is given here.
        untested: Take a model of no tested family too, if its modules have the names of one. Nothing says then that its
            numbers are right but its self-check (``model.support``), and what that finds wrong raises where it is used.

    Returns:
        The model, ready for every function of the package.

    Raises:
        FileNotFoundError: The bundled model is not installed (with the command that installs it), or no such file.
        ValueError: A damaged or foreign file, one of several that belong together, a checkpoint that does not fit, an
            unsupported family, a missing tokenizer or what is none, an unknown dtype or device; weights that are NaN or
            infinite; a model that is quantised, compiled, carries an adapter or is not in memory as a whole; a folder
            that is an adapter or an edit.
        TypeError: A source of another type.

    Example:
        >>> folder = wb.export_base("base", model)
        >>> wb.load_model(folder, name="capitals")
        LoadedModel('capitals', 3 layers, 6 heads in 2 key-value groups, d_model 42, d_mlp 56, float32 on cpu)
        >>> wb.load_model(folder, dtype="bfloat16").dtype
        torch.bfloat16
    """
    check_text("name", name or "")
    chosen = None if tokenizer is None else own_tokenizer(tokenizer, trust_remote_code)
    if isinstance(source, nn.Module):
        placed = {"device": device, "dtype": dtype, "device_map": device_map}
        hf, own, label = from_memory(source, chosen, placed, name)
        return LoadedModel(hf, own, name=label, template=template, untested=untested)
    if source is not None and not isinstance(source, (str, Path)):
        raise ModelRefused(
            f"source must be None, a folder, a .gguf file, a hub id or an HF model, got {type(source).__name__}."
        )
    placing = Placing(read_dtype(dtype), device, device_map, trust_remote_code)
    hf, own, label = from_source(source, placing, tokenizer=tokenizer is None)
    if device is not None:
        hf = hf.to(device=device)
    hf.eval().requires_grad_(False)
    model = LoadedModel(hf, own if chosen is None else chosen, name=name or label, template=template, untested=untested)
    if tokenizer is None or isinstance(tokenizer, (str, Path)):
        options = {
            "tokenizer": whole_path(tokenizer),
            "device": device,
            "dtype": dtype,
            "device_map": device_map,
            "name": name,
        }
        options |= {"trust_remote_code": trust_remote_code, "template": template, "untested": untested}
        model.origin = Origin(whole_path(source), {k: v for k, v in options.items() if v}, model.version)
    return model
