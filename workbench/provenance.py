"""What a result records about how it came to be: model, settings and versions."""

from __future__ import annotations

import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from workbench.models import LoadedModel

PACKAGES = ("circuit-workbench", "torch", "transformers", "transformer-lens", "peft")


def versions() -> dict[str, str]:
    """Versions of this package and of those that its numbers depend on."""
    out = {}
    for package in PACKAGES:
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            out[package] = "not installed"
    return out


def provenance(model: LoadedModel, **settings: Any) -> dict[str, Any]:
    """Model name and fingerprint, dtype, the edits that it carries, the settings, versions and the time (UTC)."""
    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "dtype": str(model.dtype).removeprefix("torch."),
        "applied": [{"edit": a.edit.id, "stage": a.stage, "strength": a.strength} for a in model.applied],
        "settings": settings,
        "versions": versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
