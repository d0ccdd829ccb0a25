"""An interactive interpretability workbench: trace a fact, pick components, edit exactly those, see what it did.

Names are imported when first used, so that ``import workbench`` stays fast.

The examples in the docstrings begin where a user has written ``import workbench as wb``, ``model = wb.load_model()``,
``facts = wb.load_facts()`` and ``fact = facts["france-capital"]``. Their outputs are those of a tiny model that knows
five capitals, on which the tests run them: ``tests/helpers/examples.py`` says what ``edit``, ``report``, ``trace`` and
the other names are.
"""

# ruff: noqa: F401
from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036 - pip refuses older ones, but a checkout can be imported without pip
    raise ImportError(
        f"circuit-workbench needs Python 3.11 or newer, and this is {sys.version.split()[0]} ({sys.executable}). Use "
        "the environment of `make env` (.venv/bin/python), or install it with a newer Python."
    )

if TYPE_CHECKING:  # the same names for type checkers; a test compares the two
    from workbench.circuits.curves import faithfulness_curve
    from workbench.circuits.edges import edges
    from workbench.circuits.faithfulness import faithfulness
    from workbench.circuits.paths import path_patch
    from workbench.comparing.compare import compare
    from workbench.comparing.edge_changes import compare_edges
    from workbench.comparing.maps import MapComparison, compare_maps
    from workbench.editing.applied import applied
    from workbench.editing.covariance import covariance, covariances
    from workbench.editing.dry_run import dry_run
    from workbench.editing.estimate import estimate
    from workbench.editing.export import export_base, merge
    from workbench.editing.methods import table as recipes
    from workbench.editing.methods.table import Recipe
    from workbench.editing.retain import default_retain
    from workbench.editing.rewrite import rewrite
    from workbench.editing.selector import contrast_facts, default_selection, paper_selection
    from workbench.editing.stack import EditStack
    from workbench.evaluation.ask import ask
    from workbench.evaluation.counterfact import counterfact_rates
    from workbench.evaluation.dataset_rates import dataset_rates
    from workbench.evaluation.evaluate import evaluate
    from workbench.evaluation.lenient import lenient_rates
    from workbench.evaluation.probabilities import answer_probabilities
    from workbench.evaluation.rescore import crossed_rates, rescore
    from workbench.evaluation.scores import edit_scores
    from workbench.facts.known import known_facts, load_facts
    from workbench.facts.tasks import load_task
    from workbench.files.edits import load_edit
    from workbench.files.session import Session, load_session
    from workbench.language.answers import classify
    from workbench.language.prompts import traced_prompt
    from workbench.models.load import LoadedModel, load_model
    from workbench.probing.probe import probe
    from workbench.sweeps.results import SweepResults, load_sweep
    from workbench.sweeps.sweep import sweep
    from workbench.tracing.ablation import ablate
    from workbench.tracing.agreement import agreement, overlap
    from workbench.tracing.attention import attention_pattern, attention_patterns
    from workbench.tracing.attribution import attribute
    from workbench.tracing.cache import cache
    from workbench.tracing.causal import causal_trace
    from workbench.tracing.lens import lens
    from workbench.tracing.lens_grid import lens_grid
    from workbench.tracing.next_tokens import next_tokens
    from workbench.tracing.patchscope import patchscope
    from workbench.tracing.ranking import ranked
    from workbench.tracing.summary import where_read
    from workbench.tracing.tuned_lens import tuned_lens
    from workbench.tracing.writes import writes
    from workbench.types import (
        Ablation,
        Ablations,
        ArmTable,
        Circuit,
        Component,
        Contrast,
        Covariance,
        DataPrompt,
        DryRun,
        EdgeComparison,
        EdgeMap,
        Edit,
        EffectMap,
        Estimate,
        EvalReport,
        Fact,
        FactSet,
        Faithfulness,
        FaithfulnessCurve,
        Lens,
        LensGrid,
        NextTokens,
        NullSize,
        Patchscope,
        PathEffect,
        ProbeNull,
        ProbeReport,
        Run,
        Selection,
        Support,
        TaskSet,
        TunedLens,
        Writes,
    )
    from workbench.types.facts_of_cell import facts_of_cell
    from workbench.widgets.app import Workbench
    from workbench.widgets.compare.view import CompareView
    from workbench.widgets.edit.panel import EditPanel
    from workbench.widgets.facts.chooser import FactChooser
    from workbench.widgets.graph.panel import CircuitGraph
    from workbench.widgets.picker.picker import CircuitPicker
    from workbench.widgets.probe.panel import ProbePanel
    from workbench.widgets.stack.panel import StackPanel
    from workbench.widgets.sweep.average import average_picker
    from workbench.widgets.sweep.panel import SweepPanel

__version__ = "0.2.0"
"""The only place: pyproject.toml reads it from here."""

_HOMES = {
    "Ablation": "types",
    "Ablations": "types",
    "ArmTable": "types",
    "Circuit": "types",
    "CircuitGraph": "widgets.graph.panel",
    "CircuitPicker": "widgets.picker.picker",
    "CompareView": "widgets.compare.view",
    "Component": "types",
    "Contrast": "types",
    "Covariance": "types",
    "DryRun": "types",
    "DataPrompt": "types",
    "Edit": "types",
    "EditPanel": "widgets.edit.panel",
    "EditStack": "editing.stack",
    "EdgeComparison": "types",
    "EdgeMap": "types",
    "EffectMap": "types",
    "Estimate": "types",
    "EvalReport": "types",
    "Fact": "types",
    "FactChooser": "widgets.facts.chooser",
    "FactSet": "types",
    "Faithfulness": "types",
    "FaithfulnessCurve": "types",
    "Lens": "types",
    "LensGrid": "types",
    "LoadedModel": "models.load",
    "MapComparison": "comparing.maps",
    "NextTokens": "types",
    "NullSize": "types",
    "Patchscope": "types",
    "PathEffect": "types",
    "ProbeNull": "types",
    "ProbePanel": "widgets.probe.panel",
    "ProbeReport": "types",
    "Recipe": "editing.methods.table",
    "Run": "types",
    "Selection": "types",
    "Session": "files.session",
    "StackPanel": "widgets.stack.panel",
    "Support": "types",
    "SweepPanel": "widgets.sweep.panel",
    "SweepResults": "sweeps.results",
    "TaskSet": "types",
    "TunedLens": "types",
    "Workbench": "widgets.app",
    "Writes": "types",
    "ablate": "tracing.ablation",
    "agreement": "tracing.agreement",
    "answer_probabilities": "evaluation.probabilities",
    "applied": "editing.applied",
    "ask": "evaluation.ask",
    "attention_pattern": "tracing.attention",
    "attention_patterns": "tracing.attention",
    "attribute": "tracing.attribution",
    "average_picker": "widgets.sweep.average",
    "cache": "tracing.cache",
    "causal_trace": "tracing.causal",
    "classify": "language.answers",
    "compare": "comparing.compare",
    "compare_edges": "comparing.edge_changes",
    "compare_maps": "comparing.maps",
    "contrast_facts": "editing.selector",
    "counterfact_rates": "evaluation.counterfact",
    "covariance": "editing.covariance",
    "covariances": "editing.covariance",
    "dry_run": "editing.dry_run",
    "dataset_rates": "evaluation.dataset_rates",
    "default_retain": "editing.retain",
    "default_selection": "editing.selector",
    "edges": "circuits.edges",
    "estimate": "editing.estimate",
    "crossed_rates": "evaluation.rescore",
    "edit_scores": "evaluation.scores",
    "evaluate": "evaluation.evaluate",
    "export_base": "editing.export",
    "facts_of_cell": "types.facts_of_cell",
    "faithfulness": "circuits.faithfulness",
    "faithfulness_curve": "circuits.curves",
    "known_facts": "facts.known",
    "lenient_rates": "evaluation.lenient",
    "rescore": "evaluation.rescore",
    "lens": "tracing.lens",
    "lens_grid": "tracing.lens_grid",
    "load_edit": "files.edits",
    "load_facts": "facts.known",
    "load_model": "models.load",
    "load_session": "files.session",
    "load_sweep": "sweeps.results",
    "load_task": "facts.tasks",
    "merge": "editing.export",
    "next_tokens": "tracing.next_tokens",
    "overlap": "tracing.agreement",
    "paper_selection": "editing.selector",
    "patchscope": "tracing.patchscope",
    "path_patch": "circuits.paths",
    "probe": "probing.probe",
    "ranked": "tracing.ranking",
    "recipes": "editing.methods.table",
    "rewrite": "editing.rewrite",
    "sweep": "sweeps.sweep",
    "traced_prompt": "language.prompts",
    "tuned_lens": "tracing.tuned_lens",
    "where_read": "tracing.summary",
    "writes": "tracing.writes",
}

_MODULES = {"recipes"}
"""Public names that are their whole module."""

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    home = import_module(f"workbench.{_HOMES[name]}")
    value = home if name in _MODULES else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
