"""Long measurements that are made once: a file each, read again as long as its settings are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import workbench as wb
from workbench.editing.selector import NEURONS, RETAINED
from workbench.files.atomic import write_bytes

RECIPES = ("recipe", "paper")
"""Settings that are recipes."""


def kept(path: Path, settings: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured with these settings: read from the file, or measured now and written to it.

    Args:
        path: The file.
        settings: All that the measurement depends on, as JSON values; kept beside it under ``"settings"``.
        measure: Gives plain JSON values.
    """
    done = json.loads(path.read_text()) if path.is_file() else {}
    if not same_settings(done.get("settings"), settings):
        done = {"settings": settings, **measure()}
        write_bytes(path, json.dumps(done, indent=1).encode())
    return done


def same_settings(made_with: dict[str, Any] | None, settings: dict[str, Any]) -> bool:
    """Whether a measurement on file was made with these settings.

    An option that a recipe on file lacks was added later, with a default that leaves fits as they were before.
    """
    return made_with is not None and _complete(made_with) == _complete(settings)


def _complete(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they are read back from a file (tuples are lists), with all options of their recipes."""
    plain = json.loads(json.dumps(settings))
    options = json.loads(json.dumps(wb.Recipe().to_dict()))
    return plain | {name: options | plain[name] for name in RECIPES if name in plain}


def defaults(model: wb.LoadedModel, recipe: wb.Recipe | None = None, neurons: int = NEURONS) -> dict[str, Any]:
    """What an edit by the default selector and its rates depend on: the model, the recipe (the default one for None),
    the selector, and the bundled facts with their wordings and aliases. The package's code is not in it: delete the
    files when it changes what is fitted or counted.
    """
    facts = json.dumps([fact.to_dict() for fact in wb.load_facts()], sort_keys=True)
    recipe = recipe or wb.Recipe()
    return {
        "facts": hashlib.sha256(facts.encode()).hexdigest()[:16],
        "model": model.fingerprint,
        "recipe": recipe.to_dict() | {"steps": list(recipe.stage_steps)},
        "selector": {"neurons": neurons, "layers": "all", "retained": RETAINED},
    }
