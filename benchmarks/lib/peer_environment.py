"""An environment of its own for a package that a benchmark compares with: made once, in the user's cache folder."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from workbench.files.user_cache import cache_folder

MADE = "made.txt"
"""What lies in a folder whose environment is whole."""


class EnvironmentNotMade(RuntimeError):
    """An environment could not be made; the message says why and what to do."""


def environment(package: str, versions: Path, *, part: str, base: str = sys.executable) -> Path:
    """The Python of an environment with one package, which is made (minutes, gigabytes) where it is not there yet.

    Args:
        package: What is installed, with its version: ``"auto-circuit==1.0.1"``.
        versions: A file of constraints that has every version. Another content is another environment.
        part: The part of a benchmark that needs it, for the message.
        base: The Python that makes it.

    Raises:
        EnvironmentNotMade: It cannot be made, for want of a package registry, disk or a Python.

    Example:
        >>> environment("auto-circuit==1.0.1", Path("benchmarks/lib/auto_circuit.txt"), part="auto-circuit")
        PosixPath('.../environments/auto-circuit-1.0.1-6e1d3a02/bin/python')
    """
    content = f"{sys.version_info[:2]} {package}\n{versions.read_text(encoding='utf-8')}"
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    folder = cache_folder() / "environments" / f"{package.replace('==', '-')}-{digest}"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if (folder / MADE).is_file():
        return python
    print(f"Making an environment with {package} in {folder} (minutes, gigabytes).", file=sys.stderr, flush=True)
    steps = [
        [base, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", package, "--constraint", str(versions)],
    ]
    try:
        shutil.rmtree(folder, ignore_errors=True)  # half of one that was stopped
        folder.parent.mkdir(parents=True, exist_ok=True)
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True)
            if done.returncode:
                raise OSError(f"`{' '.join(step)}` ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
        (folder / MADE).write_text(content, encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise EnvironmentNotMade(
            f"The environment with {package}, which the part {part!r} needs, could not be made in {folder}: {error}\n"
            "pip needs a package registry that has all versions of "
            f"{versions}, and 3 GB of disk. WORKBENCH_CACHE names another folder; --only runs the other parts."
        ) from error
    return python
