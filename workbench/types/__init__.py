"""Frozen result types: no files, no models. Everything else in the package imports from here."""

from workbench.types.arms import ARMS, ArmName, ArmRow, ArmTable
from workbench.types.edit import STAGES, Edit, EditStage, GateDelta, Recipe, StageName, Step
from workbench.types.effect import Ablation, EffectMap, Form, TracedPrompt, Unit
from workbench.types.fact import Fact, FactSet, Role, Split, slug
from workbench.types.lens import ANSWER_NAMES, AnswerName, Lens
from workbench.types.probe import PROBES, Curve, ProbeGroup, ProbeName, ProbeReport, ProbeRow, Recovered
from workbench.types.report import ANSWER_CLASSES, GROUPS, AnswerClass, AnswerRow, EvalReport, Group, Rate
from workbench.types.selection import (
    SITES,
    Component,
    HasShape,
    Kind,
    ModelShape,
    Selection,
    Site,
    all_components,
    shape_of,
)

__all__ = [
    "ANSWER_CLASSES",
    "ANSWER_NAMES",
    "ARMS",
    "GROUPS",
    "PROBES",
    "SITES",
    "STAGES",
    "Ablation",
    "AnswerClass",
    "AnswerName",
    "AnswerRow",
    "ArmName",
    "ArmRow",
    "ArmTable",
    "Component",
    "Curve",
    "Edit",
    "EditStage",
    "EffectMap",
    "EvalReport",
    "Fact",
    "FactSet",
    "Form",
    "GateDelta",
    "Group",
    "HasShape",
    "Kind",
    "Lens",
    "ModelShape",
    "ProbeGroup",
    "ProbeName",
    "ProbeReport",
    "ProbeRow",
    "Rate",
    "Recipe",
    "Recovered",
    "Role",
    "Selection",
    "Site",
    "Split",
    "StageName",
    "Step",
    "TracedPrompt",
    "Unit",
    "all_components",
    "shape_of",
    "slug",
]
