"""Frozen result types: no files, no models. Everything else in the package imports from here."""

from workbench.types.arms import ARMS, ArmName, ArmRow, ArmTable
from workbench.types.edit import STAGES, Edit, EditStage, GateDelta, Recipe, StageName, Step
from workbench.types.effect import Ablation, EffectMap, Form, TracedPrompt, Unit
from workbench.types.fact import Fact, FactSet, Role, Split, slug
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
    "ARMS",
    "GROUPS",
    "SITES",
    "STAGES",
    "Ablation",
    "AnswerClass",
    "AnswerRow",
    "ArmName",
    "ArmRow",
    "ArmTable",
    "Component",
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
    "ModelShape",
    "Rate",
    "Recipe",
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
