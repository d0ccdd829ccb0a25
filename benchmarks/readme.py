"""What the README's ten lines print, and the disk space that an installation takes.

    python -m benchmarks.readme

The script is taken from the README and run in an empty folder, on the bundled model. The space is that of the
environment which runs this (all that ``make env`` installs, the tools for development too) and of the converted model
in the user's cache folder. Writes ``benchmarks/results/readme.json``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.lib.code import code_of
from workbench.files.atomic import write_bytes
from workbench.files.user_cache import cache_folder

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks/results/readme.json"


def ten_lines(text: str) -> tuple[str, str]:
    """The script below the heading "Ten lines" of a page, and the output that stands below it.

    Raises:
        ValueError: There is no such heading with a block of Python and a block of text below it.
    """
    section = text.partition("\n## Ten lines\n")[2].partition("\n## ")[0]
    found = re.fullmatch(r"\s*```python\n(.*?)```\s+```text\n(.*?)```.*", section, re.DOTALL)
    if found is None:
        raise ValueError('The README must have a "## Ten lines" with a ```python block and a ```text block below it.')
    return found[1], found[2]


def printed(script: str) -> str:
    """What a script prints, run in an empty folder, without spaces at the ends of lines. Progress bars go elsewhere."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def size(folder: Path) -> int:
    """The bytes that the files below a folder take on disk, each file once."""
    found: dict[tuple[int, int], int] = {}
    for home, _, names in os.walk(folder):
        for name in names:
            stat = os.lstat(os.path.join(home, name))
            found[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(found.values())


def main() -> None:
    """Run, measure, print, write."""
    script, shown = ten_lines(README.read_text(encoding="utf-8"))
    code = code_of(__file__)
    wb.load_model()  # converted, if it is not yet
    result: dict[str, Any] = {
        "code": code.to_dict(),
        "script": script,
        "printed": printed(script),
        "environment_gb": round(size(Path(sys.prefix)) / 1e9, 2),
        "cache_gb": round(size(cache_folder()) / 1e9, 2),
    }
    print(result["printed"])
    print(f"The README shows {'the same' if shown == result['printed'] else 'something else: put this there'}.")
    print(f"Environment {result['environment_gb']} GB, converted model {result['cache_gb']} GB.")
    write_bytes(RESULTS, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
