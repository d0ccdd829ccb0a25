"""What a result records about how it came to be: model, settings and versions."""

from __future__ import annotations

import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from workbench.models.load import LoadedModel
from workbench.models.template_options import effective

PACKAGES = ("circuit-workbench", "torch", "transformers", "transformer-lens", "peft")


def versions() -> dict[str, str]:
    """Versions of this package and of those that its numbers depend on."""
    return {package: _version(package) for package in PACKAGES}


@cache  # a process imports a package once
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def provenance(model: LoadedModel, **settings: Any) -> dict[str, Any]:
    """Model name and fingerprint, template options (where there are any), dtype, the edits that it carries, the
    settings, versions and the time (UTC)."""
    template = effective(model.template, model.chat_template)
    return {
        "model": model.name,
        **({"template": template} if template else {}),
        "fingerprint": model.fingerprint,
        "dtype": str(model.dtype).removeprefix("torch."),
        "applied": [{"edit": a.edit.id, "stage": a.stage, "strength": a.strength} for a in model.applied],
        "settings": settings,
        "versions": versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
