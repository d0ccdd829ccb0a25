"""Rewriting facts: fit IA3 gates on the selected components, stage by stage.

Method: unlearn-then-learn with IA3 (arXiv 2508.07075), on PEFT's IA3 layers. Deviations: a KL term on the base model's
own greedy answers to a retain set; gradient masks, so that gates outside the selection stay exactly 1; the later
stage's gates multiply the earlier one's as two live adapters, which equals merging the first; by default the
learned answers are the base model's own sentences with the answer exchanged.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from workbench.architecture import inject_gates, shared_view
from workbench.editing.batches import (
    ROWS_A_BATCH,
    Prepared,
    Row,
    Shuffled,
    chat_row,
    refused,
    retain_batches,
    retain_rows,
    rewritten,
    shared_prefix,
    wanted_rows,
)
from workbench.editing.optimisers import Adam, NaturalGradient, Optimiser
from workbench.editing.retain import default_retain
from workbench.editing.selector import SELECTOR, default_selection
from workbench.editing.sensitivity import fisher_information
from workbench.generation import greedy_answers
from workbench.models import LoadedModel
from workbench.prompts import check_first_tokens, prompt_ids
from workbench.provenance import provenance
from workbench.resume import Resumable
from workbench.types import Edit, EditStage, Fact, FactSet, GateDelta, Recipe, Selection, Site, StageName, Step

MONITOR_EVERY = 5


class Cancelled(Exception):
    """The fit was cancelled; the model is as it was and no edit was made."""


class NonFiniteLoss(ArithmeticError):
    """The loss became NaN or infinite; the model is as it was and no edit was made."""


class CancelFlag(Protocol):
    """Anything with ``is_set``, such as a ``threading.Event``."""

    def is_set(self) -> bool: ...


def rewrite(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    selection: Selection | str | None = None,
    *,
    recipe: Recipe | str | None = None,
    retain: FactSet | Sequence[Fact] | None = None,
    pool: FactSet | None = None,
    on_step: Callable[[Step], Any] | None = None,
    cancel: CancelFlag | None = None,
    progress: bool = True,
) -> Edit:
    """Fit an edit that makes the model answer the facts' targets, moving gates of the selected components only.

    Args:
        model: A base model; it is not changed.
        fact: One fact, or several that are rewritten together.
        selection: What may move, as a ``Selection`` or text. None: the default selector ``neurons-by-contrast`` (see
            ``default_selection``): those whose gates move the new answer most for what they cost other answers.
        recipe: A ``Recipe``, the name of a built-in one (``"unlearn-then-learn"``, ``"learn-only"``,
            ``"unlearn-only"``, ``"paper"``), or None for the first.
        retain: Facts whose answers are held in place by the KL term; None: ``default_retain``. Never evaluated.
        pool: Where the default retain set and the selector's controls come from; the bundled facts by default.
        on_step: Called with each ``Step``. Returning False cancels.
        cancel: Checked before each step; when set, the fit ends with ``Cancelled``.
        progress: Show a progress bar.

    Returns:
        The edit, with one stage per stage of the recipe.

    Raises:
        ValueError: An empty selection, a component that the model lacks, an edited model, answer and target with the
            same first token, a retain set that holds an edited fact, or one that is missing though the recipe needs it.
        Cancelled: ``cancel`` was set or ``on_step`` returned False.
        NonFiniteLoss: The loss became NaN or infinite.
        KeyboardInterrupt: Ctrl-C; as after every error, nothing is half-applied: gates live on a copy's adapters.
    """
    facts = [fact] if isinstance(fact, Fact) else list(fact)
    recipe = Recipe.named(recipe) if isinstance(recipe, str) else recipe or Recipe()
    if model.applied:
        raise ValueError(f"{model.name!r} carries an edit already. Rewrite its base (model.base), then apply both.")
    if not facts:
        raise ValueError("rewrite needs at least one fact, got none.")
    for one in facts:
        check_first_tokens(model, one)
    given = selection is not None
    chosen = Selection(selection) if isinstance(selection, str) else selection
    if chosen is not None:
        check_selection(model, chosen)
    began = time.perf_counter()
    kept = _retain_set(model, facts, retain, recipe, pool, progress)
    _check_cancel(cancel)
    if chosen is None:
        chosen = default_selection(model, facts, pool=pool, seed=recipe.seed, progress=progress)
    _check_cancel(cancel)
    selected_at = time.perf_counter()
    fit = _Fit(model, facts, chosen, recipe, kept, on_step=on_step, cancel=cancel, progress=progress)
    stages = fit.run()
    return Edit(
        stages=stages,
        selection=chosen,
        selector="given" if given else SELECTOR,
        recipe=recipe,
        facts=tuple(facts),
        retain_ids=tuple(f.id for f in kept),
        history=tuple(fit.history),
        base_fingerprint=model.fingerprint,
        base_name=model.name,
        provenance=provenance(
            model,
            retain_rows=fit.n_retain,
            lowest_layer=fit.start,
            seconds_to_select=round(selected_at - began, 1),
            seconds_to_fit=round(time.perf_counter() - selected_at, 1),
        )
        | {"modules": model.architecture.describe(fit.entries)},
    )


def _check_cancel(cancel: CancelFlag | None, when: str = "before the fit") -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled(f"Cancelled {when}; the model is as it was.")


def check_selection(model: LoadedModel, selection: Selection) -> None:
    """Raise a ValueError for an empty selection, or a component that the model lacks."""
    if not len(selection):
        raise ValueError("The selection is empty, so nothing could move. Pick components, or pass selection=None.")
    for layer, site in selection.entries(model):
        model.architecture.gate_module(layer, site)


def _retain_set(
    model: LoadedModel,
    facts: Sequence[Fact],
    retain: FactSet | Sequence[Fact] | None,
    recipe: Recipe,
    pool: FactSet | None,
    progress: bool,
) -> FactSet:
    if retain is None:
        size = recipe.retain_size if recipe.uses_retain else 0
        return default_retain(model, facts, pool=pool, size=size, seed=recipe.seed, progress=progress)
    kept = retain if isinstance(retain, FactSet) else FactSet(retain, name="retain set")
    ids = {f.id for f in facts}
    texts = {q for f in facts for q in (*f.training_questions, *f.heldout)}
    clash = [f.id for f in kept if f.id in ids or texts & set(f.training_questions)]
    if clash:
        raise ValueError(
            f"The retain set overlaps what is trained and evaluated: {clash}. Leave these facts out of retain=."
        )
    return kept


def lower_quartile(values: Iterable[float]) -> float:
    """The value that a quarter of the values fall short of."""
    ordered = sorted(values)
    return ordered[len(ordered) // 4]


class _Fit:
    """One run of ``rewrite``: everything that it changes lives here and on a structure copy of the model."""

    def __init__(
        self,
        model: LoadedModel,
        facts: Sequence[Fact],
        selection: Selection,
        recipe: Recipe,
        retain: FactSet,
        *,
        on_step: Callable[[Step], Any] | None,
        cancel: CancelFlag | None,
        progress: bool,
    ) -> None:
        self.model, self.facts, self.recipe = model, facts, recipe
        self.on_step, self.cancel, self.progress = on_step, cancel, progress
        self.entries = selection.entries(model)
        self.start = min(layer for layer, _ in self.entries)
        self.history: list[Step] = []
        self._began = time.perf_counter()
        self._base = Resumable(model)
        self._view = shared_view(model.hf)
        near, far = retain_rows(model, list(retain), facts) if recipe.uses_retain else ([], [])
        rows = [*near, *far]
        if recipe.optimiser == "natural" and not rows:
            raise ValueError(
                "optimiser='natural' weighs every move by what retained answers need, but the retain set is empty. "
                "Give retain=[...] (or a pool with role='retain'), or use a recipe with optimiser='adam'."
            )
        self.n_retain = len(rows)
        monitored = self._monitored()
        self._monitor_names = [name for name, _ in monitored]
        self._monitor = range(len(monitored))
        everything = [r for _, r in monitored]
        self._retain = range(len(everything), len(everything) + len(rows))
        self._near, self._far = self._retain[: len(near)], self._retain[len(near) :]
        everything += rows
        self._wanted: dict[StageName, range] = {}
        for stage in recipe.stages:
            wanted = wanted_rows(model, facts, stage, recipe)
            self._wanted[stage] = range(len(everything), len(everything) + len(wanted))
            everything += wanted
        shared = shared_prefix(everything)
        # The shared tokens are the same for every row, so their residual stream is taken from the first.
        with torch.no_grad():
            first = self._base.entering(torch.tensor([everything[0].prompt]), self.start)
        self._shared = first[:, :shared] if shared else None
        self._rows = Prepared(self._base, everything, self.start, shared)
        self._reference = self._reference_logprobs()
        self._fisher: Tensor | None = None

    def _monitored(self) -> list[tuple[str, Row]]:
        """The first fact's bare question with the old answer, the target and the refusal as they would be said."""
        fact, own = self.facts[0], self.recipe.answers == "own"
        prompt = prompt_ids(self.model, fact.question, "chat")
        said = greedy_answers(self.model, [prompt])[0].text if own else ""
        new = rewritten(said, fact) if own else f"{fact.target}."
        texts = {
            "p_old": new.replace(fact.target, fact.answer),
            "p_new": new,
            "p_refusal": refused(said, fact) if own else fact.refusal,
        }
        return [(name, chat_row(self.model, prompt, text)) for name, text in texts.items()]

    def _reference_logprobs(self) -> dict[int, Tensor]:
        """The base model's log-probabilities at every retained answer token, once: by row, [tokens, d_vocab]."""
        out: dict[int, Tensor] = {}
        with torch.no_grad():
            for first in range(0, len(self._retain), ROWS_A_BATCH):
                part = self._retain[first : first + ROWS_A_BATCH]
                logits = self._logits(self._base, part)
                out.update((i, x.log_softmax(-1)) for i, x in zip(part, logits, strict=True))
        return out

    def _logits(self, engine: Resumable, rows: Sequence[int]) -> list[Tensor]:
        """Logits that predict each row's answer tokens, [tokens, d_vocab] float32 per row, in one forward pass."""
        batch = self._rows.batch(rows)
        logits = engine.logits_at(batch.resid, batch.row, batch.position, start=self.start, shared=self._shared)
        return list(logits.float().split(batch.count))

    def run(self) -> tuple[EditStage, ...]:
        """Fit every stage and return them."""
        from tqdm.auto import tqdm

        stages: list[EditStage] = []
        total = sum(self.recipe.stage_steps)
        with torch.enable_grad(), tqdm(total=total, desc="Rewriting", disable=not self.progress) as bar:
            for stage, steps in zip(self.recipe.stages, self.recipe.stage_steps, strict=True):
                ones: dict[tuple[int, Site], Tensor] = {
                    (at, site): torch.ones(self.model.shape.site_size(site)) for at, site in self.entries
                }
                parameters = inject_gates(self._view, self.model.architecture, GateDelta(ones), adapter=stage)
                done = self._stage(stage, steps, parameters, bar)
                bar.update(steps - done)  # an early stop
                stages.append(EditStage(stage, self._delta(parameters)))
        return tuple(stages)

    def _masks(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """1.0 at selected entries of each IA3 vector, else 0.0, in the vector's shape."""
        picked: dict[tuple[int, Site], Tensor] = {}
        for (layer, site), indices in self.entries.items():
            picked[layer, site] = torch.zeros(self.model.shape.site_size(site))
            picked[layer, site][list(indices)] = 1.0
        spread = self.model.architecture.vectors(GateDelta(picked), fill=0.0)
        return {name: spread[name].reshape(p.shape).to(p.device) for name, p in parameters.items()}

    def _delta(self, parameters: Mapping[str, nn.Parameter]) -> GateDelta:
        gates: dict[tuple[int, Site], Tensor] = {}
        for layer, site in self.entries:
            place = self.model.architecture.gate_module(layer, site)
            gates[layer, site] = parameters[place.module].detach().flatten()[place.span]
        return GateDelta(gates)

    def _stage(self, stage: StageName, steps: int, parameters: Mapping[str, nn.Parameter], bar: Any) -> int:
        """Train one stage's gates; returns how many steps it took."""
        recipe = self.recipe
        engine = Resumable(self.model, self._view)
        masks = self._masks(parameters)
        for p in parameters.values():
            p.requires_grad_(True)
        optimiser = self._optimiser(parameters)
        wanted = self._wanted[stage]
        seed = random.Random(f"{recipe.seed}-{stage}").randrange(2**31)
        fact_batches = iter(Shuffled(wanted, recipe.batch_size, seed))
        near, far = (self._near, self._far) if recipe.retain_weight > 0 else ((), ())
        held_batches = retain_batches(near, far, recipe.retain_batch_size, seed + 1)
        confidence: dict[int, float] = {}
        cooldown = min(recipe.cooldown, steps // 2)
        done, end, latest = 0, steps, (math.nan, math.nan)
        try:
            for step in range(steps):
                _check_cancel(self.cancel, f"in stage {stage!r} before step {step}")
                chosen, held = next(fact_batches), next(held_batches)
                logits = self._logits(engine, [*chosen, *held])
                nll = self._answer_nll(logits[: len(chosen)], chosen)
                confidence.update(zip(chosen, (-nll.detach()).exp().tolist(), strict=True))
                loss, kl = nll.mean(), self._kl(logits[len(chosen) :], held)
                lacking = nll if recipe.hinge is None else (nll + math.log(recipe.hinge)).relu()
                total = lacking.mean() + recipe.retain_weight * kl
                if not bool(torch.isfinite(total)):
                    raise NonFiniteLoss(
                        f"The loss is {float(loss.detach())!r} and the KL {float(kl.detach())!r} at step {step} of "
                        f"stage {stage!r}. Lower learning_rate (now {recipe.learning_rate}); the model is as it was."
                    )
                latest = float(loss.detach()), float(kl.detach())
                seen_all = len(confidence) == len(wanted)
                enough = (
                    recipe.early_stop is not None
                    and seen_all
                    and lower_quartile(confidence.values()) >= recipe.early_stop
                )
                if enough:
                    end = min(end, step + cooldown)
                if step == end:
                    break
                monitored = self._measure(engine) if step % MONITOR_EVERY == 0 else {}
                self._record(Step(stage, step, *latest, **monitored), bar)
                for p in parameters.values():
                    p.grad = None
                total.backward()
                for name, p in parameters.items():
                    assert p.grad is not None
                    p.grad.mul_(masks[name])  # an exact zero gradient keeps every update at exactly zero
                warm, cool = (step + 1) / (recipe.warmup + 1), (end - step) / (cooldown + 1)
                optimiser.step(recipe.learning_rate * min(warm, cool, 1.0))
                self._clamp(parameters)
                done = step + 1
                bar.update()
        finally:
            for p in parameters.values():
                p.requires_grad_(False)
        self._record(Step(stage, done, *latest, **self._measure(engine)), None)
        return done

    def _optimiser(self, parameters: Mapping[str, nn.Parameter]) -> Optimiser:
        if self.recipe.optimiser == "adam":
            return Adam(parameters)
        if self._fisher is None:
            kinds = [[self._rows.rows[i] for i in kind] for kind in (self._near, self._far)]
            self._fisher = fisher_information(self.model, kinds, self.entries, self.recipe.seed)
        places: list[tuple[nn.Parameter, Tensor]] = []
        for (layer, site), indices in self.entries.items():
            place = self.model.architecture.gate_module(layer, site)
            places.append((parameters[place.module], torch.tensor(indices) + place.span.start))
        return NaturalGradient(places, self._fisher)

    def _clamp(self, parameters: Mapping[str, nn.Parameter]) -> None:
        if self.recipe.max_gate is not None:
            with torch.no_grad():
                for p in parameters.values():
                    p.clamp_(2 - self.recipe.max_gate, self.recipe.max_gate)

    def _record(self, step: Step, bar: Any) -> None:
        self.history.append(step)
        if bar is not None:
            bar.set_postfix(stage=step.stage, loss=f"{step.loss:.2f}", kl=f"{step.kl:.3f}", refresh=False)
        if self.on_step is not None and self.on_step(step) is False:
            raise Cancelled(
                f"Cancelled by on_step in stage {step.stage!r} at step {step.step}; the model is as it was."
            )

    def _answer_nll(self, logits: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
        """Mean negative log-likelihood of each row's answer from where it departs, nats per token, [rows]."""
        found = []
        for x, i in zip(logits, rows, strict=True):
            one = self._rows.rows[i]
            wanted = torch.tensor(one.answer[one.departs :], device=self.model.device)
            found.append(nn.functional.cross_entropy(x[one.departs :], wanted))
        return torch.stack(found)

    def _kl(self, logits: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
        """Mean KL(base || edited) over the answer tokens of some retained rows, nats per token; 0 for no rows."""
        if not rows:
            return torch.zeros((), device=self.model.device)
        edited = torch.cat(list(logits)).log_softmax(-1)
        reference = torch.cat([self._reference[i] for i in rows])
        return nn.functional.kl_div(edited, reference, reduction="none", log_target=True).sum(-1).mean()

    def _measure(self, engine: Resumable) -> dict[str, float]:
        rows = list(self._monitor)
        with torch.no_grad():
            probabilities = (-self._answer_nll(self._logits(engine, rows), rows)).exp().tolist()
        return {
            **dict(zip(self._monitor_names, probabilities, strict=True)),
            "seconds": time.perf_counter() - self._began,
        }
