"""Frozen result types: no files, no models. Everything else in the package imports from here."""

from workbench.types.ablation import Ablation, AblationKind, Ablations
from workbench.types.arms import ArmRow, ArmTable
from workbench.types.circuit import Circuit, Edge
from workbench.types.contrast import Contrast
from workbench.types.covariance import Covariance, OutputModule
from workbench.types.data_prompt import DataPrompt, DataPromptKind
from workbench.types.delta import (
    NO_DELTA,
    Codebook,
    ContextDelta,
    Delta,
    Deltas,
    DenseDelta,
    GateDelta,
    LowRankDelta,
    Memory,
    MemoryDelta,
    SideMemory,
    delta_from,
)
from workbench.types.dry_run import DryRun
from workbench.types.earlier import EarlierEdit
from workbench.types.edge_comparison import CHANGE_KINDS, ChangeKind, EdgeChange, EdgeComparison
from workbench.types.edge_graph import EdgeGraph
from workbench.types.edge_map import EdgeMap
from workbench.types.edit import Edit, EditModules, EditStage, OtherFit, SiteModule, stages_delta
from workbench.types.effect import EffectMap, Unit
from workbench.types.estimate import Estimate, EstimatedWork
from workbench.types.fact import Fact, Role, Split
from workbench.types.fact_set import FactSet
from workbench.types.faithfulness import CircuitAblation, Faithfulness
from workbench.types.faithfulness_curve import FaithfulnessCurve
from workbench.types.finding import CurveRule, Finding
from workbench.types.history import Step
from workbench.types.lens import ANSWER_NAMES, AnswerName, Lens, LensKind
from workbench.types.lens_choice import LensAsked, LensChoice
from workbench.types.lens_grid import LensGrid
from workbench.types.next_tokens import NextToken, NextTokens
from workbench.types.patchscope import Patchscope
from workbench.types.path_effect import PathEffect
from workbench.types.probe import ProbeReport
from workbench.types.probe_null import NullDraw, NullGroup, NullOfProbe, NullSize, ProbeNull
from workbench.types.probe_parts import Curve, CurveWords, ProbeGroup, ProbeRow, ProbeWords, Recovered
from workbench.types.recipe import STAGES, BaseRecipe, Objective, StageName, TrainedRecipe
from workbench.types.report import (
    ANSWER_CLASSES,
    COLLATERAL_GROUPS,
    GROUPS,
    AnswerClass,
    AnswerRow,
    EvalReport,
    Flip,
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
from workbench.types.task_set import TaskSet
from workbench.types.traced_prompt import Form, TracedPrompt
from workbench.types.tuned_lens import TunedLens
from workbench.types.write import Write
from workbench.types.writes import TokenLogit, Writes

__all__ = [
    "ContextDelta",
    "ANSWER_CLASSES",
    "ANSWER_NAMES",
    "COLLATERAL_GROUPS",
    "GROUPS",
    "SITES",
    "STAGES",
    "Ablation",
    "AblationKind",
    "Ablations",
    "AnswerClass",
    "AnswerName",
    "AnswerRow",
    "ArmRow",
    "ArmTable",
    "Circuit",
    "CircuitAblation",
    "Codebook",
    "Component",
    "Contrast",
    "Covariance",
    "DryRun",
    "Curve",
    "BaseRecipe",
    "Delta",
    "Deltas",
    "DenseDelta",
    "CurveRule",
    "CurveWords",
    "DataPrompt",
    "DataPromptKind",
    "EarlierEdit",
    "Edge",
    "CHANGE_KINDS",
    "ChangeKind",
    "EdgeChange",
    "EdgeComparison",
    "EdgeGraph",
    "EdgeMap",
    "Edit",
    "EditModules",
    "LowRankDelta",
    "Memory",
    "MemoryDelta",
    "NO_DELTA",
    "OtherFit",
    "OutputModule",
    "SideMemory",
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
    "Faithfulness",
    "FaithfulnessCurve",
    "Flip",
    "Finding",
    "Form",
    "GateDelta",
    "Group",
    "HasShape",
    "Kind",
    "Lens",
    "LensAsked",
    "LensChoice",
    "LensGrid",
    "LensKind",
    "ModelShape",
    "NextToken",
    "NextTokens",
    "NullDraw",
    "NullGroup",
    "NullOfProbe",
    "NullSize",
    "Patchscope",
    "PathEffect",
    "ProbeGroup",
    "ProbeNull",
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
    "TaskSet",
    "TextRow",
    "TokenLogit",
    "TracedPrompt",
    "TunedLens",
    "Unit",
    "Write",
    "Writes",
    "all_components",
    "shape_of",
    "slug",
    "stages_delta",
]
