"""Which code computes: versions of the packages, and a checksum of this one's own modules."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from workbench.models.provenance import versions

PACKAGE = Path(__file__).parents[1]


@cache  # a process imports a module once
def _modules_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}|{len(content)}|".encode() + content)
    return digest.hexdigest()


def code_version() -> dict[str, str]:
    """Versions by package, and ``workbench-modules``: a checksum of this package's modules, which a checkout needs that
    changes between versions."""
    return {**versions(), "workbench-modules": _modules_digest()[:16]}
