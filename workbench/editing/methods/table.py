"""The table of editing methods, and the built-in recipes by name: ``wb.recipes``.

A new method is a file in ``workbench.editing.methods`` and a row in ``METHODS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from workbench.editing.methods.alphaedit import AlphaEdit, make_alphaedit
from workbench.editing.methods.consolidate import EditThenConsolidate, make_consolidate
from workbench.editing.methods.emmet import EMMET, make_emmet
from workbench.editing.methods.full import FullFineTuning, make_full, plan_full
from workbench.editing.methods.grace import GRACE, make_grace, plan_grace
from workbench.editing.methods.ia3 import DEFAULT, IA3, make_ia3, plan_ia3
from workbench.editing.methods.ia3 import RECIPES as IA3_RECIPES
from workbench.editing.methods.in_context import InContext, make_in_context
from workbench.editing.methods.int_attn import IntAttnEdit, make_int_attn
from workbench.editing.methods.keyed import Keyed, make_keyed
from workbench.editing.methods.klue import KLUE, make_klue, plan_klue
from workbench.editing.methods.kuda import KUDA, make_kuda, plan_kuda
from workbench.editing.methods.lora import LoRA, make_lora, plan_lora
from workbench.editing.methods.memit import MEMIT, make_memit
from workbench.editing.methods.rmu import RMU, make_rmu, plan_rmu
from workbench.editing.methods.rome import ROME, make_rome
from workbench.editing.methods.ultraedit import UltraEdit, make_ultraedit
from workbench.editing.methods.wise import WISE, make_wise, plan_wise
from workbench.editing.task import Movable, Task
from workbench.types import BaseRecipe, Edit, TrainedRecipe

__all__ = [
    "DEFAULT",
    "GRACE",
    "EMMET",
    "IA3",
    "KLUE",
    "KUDA",
    "METHODS",
    "RECIPES",
    "RMU",
    "ROME",
    "MEMIT",
    "TRAINED",
    "WISE",
    "EditThenConsolidate",
    "Keyed",
    "AlphaEdit",
    "FullFineTuning",
    "LoRA",
    "Recipe",
    "UltraEdit",
    "InContext",
    "IntAttnEdit",
    "named_recipe",
]

Recipe = IA3
"""The recipe that the workbench is named for, as ``wb.Recipe``."""


@dataclass(frozen=True)
class Method:
    """An editing method.

    Args:
        title: For tables and menus.
        recipe: The class of its recipes.
        make: Makes the edit.
        source: The paper.
        plan: Says what would move, before it is trained, and refuses what ``make`` refuses of the selection and the
            settings; None where a dry run solves for it, or makes it since it takes no steps.
    """

    title: str
    recipe: type[BaseRecipe]
    make: Callable[[Task], Edit]
    source: str
    plan: Callable[[Task], Movable] | None = None


METHODS: dict[str, Method] = {
    method.recipe.method: method
    for method in (
        Method("IA3 unlearn-then-learn", IA3, make_ia3, "arXiv 2508.07075", plan_ia3),
        Method("LoRA", LoRA, make_lora, "arXiv 2106.09685", plan_lora),
        Method("IntAttn-Edit", IntAttnEdit, make_int_attn, "arXiv 2510.27400"),
        Method("UltraEdit", UltraEdit, make_ultraedit, "arXiv 2505.14679"),
        Method("full fine-tuning", FullFineTuning, make_full, "", plan_full),
        Method("RMU", RMU, make_rmu, "arXiv 2403.03218", plan_rmu),
        Method("KLUE", KLUE, make_klue, "arXiv 2502.19207", plan_klue),
        Method("KUDA", KUDA, make_kuda, "arXiv 2602.19275", plan_kuda),
        Method("ROME", ROME, make_rome, "arXiv 2202.05262"),
        Method("GRACE", GRACE, make_grace, "arXiv 2211.11031", plan_grace),
        Method("WISE", WISE, make_wise, "arXiv 2405.14768", plan_wise),
        Method("keyed update", Keyed, make_keyed, ""),
        Method("edit, then consolidate", EditThenConsolidate, make_consolidate, ""),
        Method("MEMIT", MEMIT, make_memit, "arXiv 2210.07229"),
        Method("AlphaEdit", AlphaEdit, make_alphaedit, "arXiv 2410.02355"),
        Method("EMMET", EMMET, make_emmet, "arXiv 2403.14236"),
        Method("in context", InContext, make_in_context, "arXiv 2310.07579, 2305.12740, 2406.10890"),
    )
}
"""By the name that recipes and saved files have for them."""

RECIPES: dict[str, BaseRecipe] = {
    **IA3_RECIPES,
    "lora": LoRA(),
    "full": FullFineTuning(),
    "grace": GRACE(),
    "wise": WISE(),
    "in-context": InContext(),
    "rmu": RMU(),
    "klue": KLUE(),
    "kuda": KUDA(),
    "rome": ROME(),
    "keyed": Keyed(),
    "consolidate": EditThenConsolidate(),
    "recommended": EditThenConsolidate(name="recommended", reserve=1.4),
    "memit": MEMIT(),
    "alphaedit": AlphaEdit(),
    "emmet": EMMET(),
    "int-attn": IntAttnEdit(),
    "ultraedit": UltraEdit(),
}
"""The built-in recipes by name. ``"recommended"`` is AlphaEdit, then consolidated: of what ``benchmarks/levers.py`` put
side by side on dev facts it spares most controls, neighbours and other facts with the old answer. Its directions leave
ordinary text alone, and its steps mend a part of what they move of the subject itself."""

TRAINED: dict[str, TrainedRecipe] = {name: one for name, one in RECIPES.items() if isinstance(one, TrainedRecipe)}
"""Those whose methods take steps."""


def named_recipe(name: str) -> BaseRecipe:
    """A built-in recipe.

    Args:
        name: One of ``RECIPES``.

    Returns:
        The recipe; its type chooses the method.

    Raises:
        ValueError: An unknown name; the message lists the built-in ones and the nearest.

    Example:
        >>> wb.recipes.named_recipe("lora").method
        'lora'
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown recipe {name!r}; the built-in ones are {list(RECIPES)}.{hint}")
    return RECIPES[name]
