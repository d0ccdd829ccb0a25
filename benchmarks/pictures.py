"""Draw the pictures of the README from a real trace and a real edit.

python -m benchmarks.pictures
"""

from __future__ import annotations

from pathlib import Path

import workbench as wb
from workbench.plots import write_image


def main() -> None:
    """Write ``docs/images/trace.png`` and ``docs/images/edit.png``."""
    model, fact = wb.load_model(), wb.load_facts()["france-capital"]
    folder = Path("docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    trace = wb.causal_trace(model, fact, corruption="swap", metric="logit_diff")
    write_image(trace.plot(title="Where is “the capital of France is Paris”?"), folder / "trace.png", scale=1.0)
    edit = wb.rewrite(model, fact)
    write_image(edit.plot(), folder / "edit.png", scale=1.0)


if __name__ == "__main__":
    main()
