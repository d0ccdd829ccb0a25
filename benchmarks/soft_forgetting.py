"""The default edit through the whole battery of soft-forgetting probes, as notebook 04 reads it.

    python -m benchmarks.soft_forgetting [--fact france-capital]

Writes the edit and the report to ``benchmarks/results/soft_forgetting/<fact>/``; what is there already and was made
with the same recipe on the same selection is not made again. About five minutes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import workbench as wb


def edited(model: wb.LoadedModel, fact: wb.Fact, path: Path) -> wb.Edit:
    """The default edit of a fact: the one in this folder, if it is of this model, recipe and selection."""
    selection = wb.default_selection(model, fact, progress=False)
    if path.is_dir():
        edit = wb.load_edit(path)
        if (edit.base_fingerprint, edit.recipe, edit.selection) == (model.fingerprint, wb.Recipe(), selection):
            return edit
    edit = wb.rewrite(model, fact, progress=False)
    edit.save(path)
    return edit


def main() -> None:
    """Edit, probe, print the rates and the findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fact", default="france-capital")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/soft_forgetting"))
    args = parser.parse_args()
    model, fact = wb.load_model(), wb.load_facts()[args.fact]
    folder = args.out / fact.id
    edit = edited(model, fact, folder / "edit")
    path, began = folder / "probes.json", time.perf_counter()
    report = wb.ProbeReport.load(path) if path.is_file() else None
    if report is None or report.provenance["settings"]["edit"] != edit.id:
        report = wb.probe(model, edit, progress=False)
        report.save(path)
        print(f"<!-- {time.perf_counter() - began:.0f} s for all probes -->")
    print(report.summary().to_string())
    print("\n".join(report.findings))


if __name__ == "__main__":
    main()
