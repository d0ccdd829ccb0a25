"""An interactive interpretability workbench: trace a fact, pick components, edit exactly those, see what it did.

Names are imported when first used, so that ``import workbench`` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.answers import classify
    from workbench.editing.applied import applied
    from workbench.editing.fit import rewrite
    from workbench.editing.retain import default_retain
    from workbench.editing.selector import contrast_facts, default_selection, paper_selection
    from workbench.evaluation.arms import compare
    from workbench.evaluation.counterfact import counterfact_rates
    from workbench.evaluation.evaluate import answer_probabilities, ask, evaluate
    from workbench.evaluation.lenient import lenient_rates
    from workbench.evaluation.maps import MapComparison, compare_maps
    from workbench.evaluation.probes.run import probe
    from workbench.facts import known_facts, load_facts
    from workbench.models import LoadedModel, load_model
    from workbench.prompts import traced_prompt
    from workbench.session import Session, load_session
    from workbench.store import load_edit
    from workbench.tracing.ablation import ablate, attention_pattern, attention_patterns
    from workbench.tracing.attribution import agreement, attribute
    from workbench.tracing.causal import causal_trace
    from workbench.tracing.lens import lens
    from workbench.transfer import export_base, merge
    from workbench.types import (
        Ablation,
        ArmTable,
        Component,
        Edit,
        EffectMap,
        EvalReport,
        Fact,
        FactSet,
        Lens,
        ProbeReport,
        Recipe,
        Selection,
    )
    from workbench.widgets.app import Workbench
    from workbench.widgets.compare import CompareView
    from workbench.widgets.edit_panel import EditPanel
    from workbench.widgets.facts import FactChooser
    from workbench.widgets.picker import CircuitPicker
    from workbench.widgets.probe_panel import ProbePanel

__version__ = "0.1.0"

_HOMES = {
    "Ablation": "types",
    "ArmTable": "types",
    "CircuitPicker": "widgets.picker",
    "CompareView": "widgets.compare",
    "Component": "types",
    "Edit": "types",
    "EditPanel": "widgets.edit_panel",
    "EffectMap": "types",
    "EvalReport": "types",
    "Fact": "types",
    "FactChooser": "widgets.facts",
    "FactSet": "types",
    "Lens": "types",
    "LoadedModel": "models",
    "MapComparison": "evaluation.maps",
    "ProbePanel": "widgets.probe_panel",
    "ProbeReport": "types",
    "Recipe": "types",
    "Selection": "types",
    "Session": "session",
    "Workbench": "widgets.app",
    "ablate": "tracing.ablation",
    "agreement": "tracing.attribution",
    "answer_probabilities": "evaluation.evaluate",
    "applied": "editing.applied",
    "ask": "evaluation.evaluate",
    "attention_pattern": "tracing.ablation",
    "attention_patterns": "tracing.ablation",
    "attribute": "tracing.attribution",
    "causal_trace": "tracing.causal",
    "classify": "answers",
    "compare": "evaluation.arms",
    "compare_maps": "evaluation.maps",
    "contrast_facts": "editing.selector",
    "counterfact_rates": "evaluation.counterfact",
    "default_retain": "editing.retain",
    "default_selection": "editing.selector",
    "evaluate": "evaluation.evaluate",
    "export_base": "transfer",
    "known_facts": "facts",
    "lenient_rates": "evaluation.lenient",
    "lens": "tracing.lens",
    "load_edit": "store",
    "load_facts": "facts",
    "load_model": "models",
    "load_session": "session",
    "merge": "transfer",
    "paper_selection": "editing.selector",
    "probe": "evaluation.probes.run",
    "rewrite": "editing.fit",
    "traced_prompt": "prompts",
}

__all__ = [
    "Ablation",
    "ArmTable",
    "CircuitPicker",
    "CompareView",
    "Component",
    "Edit",
    "EditPanel",
    "EffectMap",
    "EvalReport",
    "Fact",
    "FactChooser",
    "FactSet",
    "Lens",
    "LoadedModel",
    "MapComparison",
    "ProbePanel",
    "ProbeReport",
    "Recipe",
    "Selection",
    "Session",
    "Workbench",
    "ablate",
    "agreement",
    "answer_probabilities",
    "applied",
    "ask",
    "attention_pattern",
    "attention_patterns",
    "attribute",
    "causal_trace",
    "classify",
    "compare",
    "compare_maps",
    "contrast_facts",
    "counterfact_rates",
    "default_retain",
    "default_selection",
    "evaluate",
    "export_base",
    "known_facts",
    "lenient_rates",
    "lens",
    "load_edit",
    "load_facts",
    "load_model",
    "load_session",
    "merge",
    "paper_selection",
    "probe",
    "rewrite",
    "traced_prompt",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    value = getattr(import_module(f"workbench.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
