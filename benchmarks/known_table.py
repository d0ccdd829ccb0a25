"""Measure which bundled facts the bundled model knows and write the table that the package ships.

python -m benchmarks.known_table [--texts]
"""

from __future__ import annotations

import sys

import workbench as wb
from workbench.facts.known import measure_known
from workbench.facts.known_table import committed_table_path, judged, read_table, write_table


def main() -> None:
    """Write ``workbench/facts/data/known/<fingerprint>.json``. With ``--texts`` what the model said stays, and is
    judged anew: after a change of the classifier, or of the facts' answers."""
    model = wb.load_model()
    facts = wb.load_facts()
    if "--texts" in sys.argv[1:]:
        table = read_table(committed_table_path(model.fingerprint), model.fingerprint)
        answers = {k: judged(model, facts[e["id"]], e["form"], e["text"]) for k, e in table.items() if e["id"] in facts}
    else:
        answers = measure_known(model, facts)
    path = committed_table_path(model.fingerprint)
    write_table(path, model, answers)
    for form in ("chat", "cloze"):
        known = [a for a in answers.values() if a["form"] == form and a["known"]]
        print(f"{form}: {len(known)} of {len(facts)} known")
    print(path)


if __name__ == "__main__":
    main()
