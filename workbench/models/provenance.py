"""What a result records about how it came to be: model, settings and versions."""

from __future__ import annotations

import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
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


@cache
def package_commit(folder: Path = Path(__file__).parents[2]) -> str | None:
    """The commit of the checkout that the package runs from; None where it was installed otherwise. Whether files
    differ from it is not looked at.

    Args:
        folder: The folder that holds the package.
    """
    try:
        git = folder / ".git"
        if git.is_file():  # a worktree names its folder
            git = (folder / git.read_text(encoding="utf-8").partition("gitdir:")[2].strip()).resolve()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        name = head.partition("ref: ")[2]
        if not name:
            return head
        common = git / "commondir"
        home = (git / common.read_text(encoding="utf-8").strip()).resolve() if common.is_file() else git
        if (home / name).is_file():
            return (home / name).read_text(encoding="utf-8").strip()
        packed = (home / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
    except OSError:
        return None


def provenance(model: LoadedModel, **settings: Any) -> dict[str, Any]:
    """Model name and fingerprint, template options (where there are any), dtype, the edits that it carries, the
    settings, versions, the commit of a checkout, and the time (UTC)."""
    template = effective(model.template, model.chat_template)
    return {
        "model": model.name,
        **({"template": template} if template else {}),
        "fingerprint": model.fingerprint,
        "dtype": str(model.dtype).removeprefix("torch."),
        "applied": [{"edit": a.edit.id, "stage": a.stage, "strength": a.strength} for a in model.applied],
        "settings": settings,
        "versions": versions(),
        **({"commit": commit} if (commit := package_commit()) else {}),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
