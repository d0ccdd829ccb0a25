"""Frozen result types: no files, no models. Everything else in the package imports from here."""

from workbench.types.ablation import Ablation, AblationKind
from workbench.types.arms import ArmRow, ArmTable
from workbench.types.data_prompt import DataPrompt, DataPromptKind
from workbench.types.delta import NO_DELTA, Delta, Deltas, DenseDelta, GateDelta, LowRankDelta, delta_from
from workbench.types.edit import Edit, EditModules, EditStage, OtherFit, SiteModule, stages_delta
from workbench.types.effect import EffectMap, Unit
from workbench.types.estimate import Estimate, EstimatedWork
from workbench.types.fact import Fact, FactSet, Role, Split
from workbench.types.finding import CurveRule, Finding
from workbench.types.history import Step
from workbench.types.lens import ANSWER_NAMES, AnswerName, Lens
from workbench.types.lens_grid import LensGrid
from workbench.types.next_tokens import NextToken, NextTokens
from workbench.types.probe import Curve, CurveWords, ProbeGroup, ProbeReport, ProbeRow, ProbeWords, Recovered
from workbench.types.recipe import STAGES, BaseRecipe, Objective, StageName, TrainedRecipe
from workbench.types.report import (
    ANSWER_CLASSES,
    COLLATERAL_GROUPS,
    GROUPS,
    AnswerClass,
    AnswerRow,
    EvalReport,
    Group,
    Rate,
    TextRow,
)
from workbench.types.run import Run
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
from workbench.types.slug import slug
from workbench.types.support import Support, SupportCheck
from workbench.types.traced_prompt import Form, TracedPrompt
from workbench.types.writes import TokenLogit, Writes

__all__ = [
    "ANSWER_CLASSES",
    "ANSWER_NAMES",
    "COLLATERAL_GROUPS",
    "GROUPS",
    "SITES",
    "STAGES",
    "Ablation",
    "AblationKind",
    "AnswerClass",
    "AnswerName",
    "AnswerRow",
    "ArmRow",
    "ArmTable",
    "Component",
    "Curve",
    "BaseRecipe",
    "Delta",
    "Deltas",
    "DenseDelta",
    "CurveRule",
    "CurveWords",
    "DataPrompt",
    "DataPromptKind",
    "Edit",
    "EditModules",
    "LowRankDelta",
    "NO_DELTA",
    "OtherFit",
    "SiteModule",
    "TrainedRecipe",
    "delta_from",
    "EditStage",
    "EffectMap",
    "Estimate",
    "EstimatedWork",
    "EvalReport",
    "Fact",
    "FactSet",
    "Finding",
    "Form",
    "GateDelta",
    "Group",
    "HasShape",
    "Kind",
    "Lens",
    "LensGrid",
    "ModelShape",
    "NextToken",
    "NextTokens",
    "ProbeGroup",
    "ProbeReport",
    "ProbeRow",
    "ProbeWords",
    "Rate",
    "Objective",
    "Recovered",
    "Role",
    "Run",
    "Selection",
    "Site",
    "Split",
    "StageName",
    "Step",
    "Support",
    "SupportCheck",
    "TextRow",
    "TokenLogit",
    "TracedPrompt",
    "Unit",
    "Writes",
    "all_components",
    "shape_of",
    "slug",
    "stages_delta",
]
