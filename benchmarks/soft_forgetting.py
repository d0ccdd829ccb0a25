"""The default edit through the whole battery of soft-forgetting probes, as notebook 04 reads it.

    python -m benchmarks.soft_forgetting [--fact france-capital] [--again lens strength]

Writes the edit and the report to ``benchmarks/results/soft_forgetting/<fact>/``, and with which settings they were made
to ``benchmarks/results/soft_forgetting.jsonl.xz``; what is there already and was made with the settings and facts of
today is not made again. About ten minutes, and as long again for the null (``wb.probe(null="quick")``). ``--again``
asks some probes of the stored edit anew, with their null, and joins what they find to the stored report.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.lib.kept import Kept, defaults
from benchmarks.lib.store import ENDING
from workbench.probing.outcome import joined


def measure(model: wb.LoadedModel, fact: wb.Fact, folder: Path) -> dict[str, Any]:
    """The default edit and its probes, written to the folder; how long the probes took."""
    edit = wb.rewrite(model, fact, progress=False)
    edit.save(folder / "edit")
    began = time.perf_counter()
    wb.probe(model, edit, null="quick", progress=False).save(folder / "probes.json")
    return {"seconds_to_probe": round(time.perf_counter() - began)}


def again(model: wb.LoadedModel, probes: Sequence[str], folder: Path) -> wb.ProbeReport:
    """Some probes of the stored edit, with their null, joined to the stored report."""
    before = wb.ProbeReport.load(folder / "probes.json")
    given: dict[str, Any] = {"probes": probes, "control": before.control, "null": "quick", "progress": False}
    report = wb.probe(model, wb.load_edit(folder / "edit"), **given)
    joined(before, report).save(folder / "probes.json")
    return wb.ProbeReport.load(folder / "probes.json")


def main() -> None:
    """Edit, probe, print the rates and the findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fact", default="france-capital")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/soft_forgetting"))
    parser.add_argument("--again", nargs="+", metavar="PROBE", help="only these probes, of the stored edit")
    args = parser.parse_args()
    kept = Kept(args.out.with_suffix(ENDING), __file__)
    model, fact = wb.load_model(), wb.load_facts()[args.fact]
    folder = args.out / fact.id
    if args.again:
        print("\n".join(again(model, args.again, folder).findings))
        return
    files = [folder / "edit", folder / "probes.json"]
    done = kept.measured(fact.id, defaults(model), partial(measure, model, fact, folder), files)
    print(f"<!-- {done['seconds_to_probe']} s for all probes -->")
    report = wb.ProbeReport.load(folder / "probes.json")
    print(report.summary().to_string())
    print("\n".join(report.findings))


if __name__ == "__main__":
    main()
