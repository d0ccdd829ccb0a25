"""Measure which bundled facts the bundled model knows and write the table that the package ships.

python -m benchmarks.known_table
"""

from __future__ import annotations

import workbench as wb
from workbench.facts.known import committed_table_path, measure_known, write_table


def main() -> None:
    """Write ``workbench/facts/data/known/<fingerprint>.json``."""
    model = wb.load_model()
    facts = wb.load_facts()
    answers = measure_known(model, facts)
    path = committed_table_path(model.fingerprint)
    write_table(path, model, answers)
    for form in ("chat", "cloze"):
        known = [a for a in answers.values() if a["form"] == form and a["known"]]
        print(f"{form}: {len(known)} of {len(facts)} known")
    print(path)


if __name__ == "__main__":
    main()
