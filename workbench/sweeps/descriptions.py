"""Descriptions of functions, options and items as JSON values: their checksums, and whether two say the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from workbench.files.checked_json import sha256
from workbench.types.plain import is_list, is_mapping

CODE = "code of Python "
"""Begins the name of a checksum of code, which is another one in each version of Python: it is compared where both
records are of the same version."""
LAYERS = "layers"
"""The name of what decorators put around a function. It is compared where both records have it."""
LONG = 2000
"""Characters of a description from which on its checksum stands for it."""


def shortened(values: Any) -> Any:
    """JSON values, or their checksum where they are long."""
    text = as_text(_without_code(values))
    return values if len(text) < LONG else {"long": text[:60], "sha256": digest(values)}


def digest(values: Any) -> str:
    """The checksum of a description, the same in every version of Python."""
    return sha256(as_text(_without_code(values)).encode())


def call_digest(settings: Mapping[str, Any]) -> str:
    """The checksum of what is the same for all items of a sweep: function, state, options and model, but not its name.

    Args:
        settings: As ``sweep.json`` holds them.
    """
    model = {name: value for name, value in settings["model"].items() if name != "model"}
    return digest([settings["function"], settings["state"], settings["options"], model])


def alike(old: Any, new: Any) -> bool:
    """Whether two descriptions are the same. What one of them cannot record or does not (``CODE``, ``LAYERS``) is left
    out; 1, 1.0 and True are three values."""
    if is_mapping(old) and is_mapping(new):
        lacking = {name for name in old.keys() ^ new.keys() if name == LAYERS or name.startswith(CODE)}
        names = (old.keys() | new.keys()) - lacking
        return all(name in old and name in new and alike(old[name], new[name]) for name in names)
    if is_list(old) and is_list(new):
        return len(old) == len(new) and all(map(alike, old, new))
    return as_text(old) == as_text(new)


def _without_code(values: Any) -> Any:
    if is_mapping(values):
        kept = {n: v for n, v in values.items() if not (n.startswith(CODE) or (n == LAYERS and not v))}
        return {name: _without_code(value) for name, value in kept.items()}
    return [_without_code(value) for value in values] if is_list(values) else values


def as_text(values: Any) -> str:
    """JSON values as text, the same for the same values."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"))
