"""Measure which bundled facts the bundled model knows and write the table that the package ships.

python -m benchmarks.known_table [--texts | --new] [--sealed]
"""

from __future__ import annotations

import sys

import workbench as wb
from workbench.facts.known import measure_known
from workbench.facts.known_table import FORMS, Entry, committed_table_paths, judged, read_table, write_table

PART = 24


def main() -> None:
    """Write ``workbench/facts/data/known/<fingerprint>.json``. With ``--texts`` what the model said stays, and is
    judged anew: after a change of the classifier, or of the facts' answers. With ``--new`` facts that the table lacks
    are asked too; it is written after every part of them. With ``--sealed`` it is the table of the sealed facts, of
    which nothing else may be looked at while defaults can still change."""
    model = wb.load_model()
    sealed = "--sealed" in sys.argv[1:]
    facts = wb.load_facts(split="sealed" if sealed else None)
    path, answers = committed_table_paths(model.fingerprint)[sealed], dict[str, Entry]()
    if {"--texts", "--new"} & {*sys.argv[1:]}:
        table = read_table(path, model.fingerprint)
        answers = {k: judged(model, facts[e["id"]], e["form"], e["text"]) for k, e in table.items() if e["id"] in facts}
    if "--texts" not in sys.argv[1:]:
        for form in FORMS:
            there = {entry["id"] for entry in answers.values() if entry["form"] == form}
            missing = [fact for fact in facts if fact.id not in there]
            for start in range(0, len(missing), PART):
                answers |= measure_known(model, missing[start : start + PART], (form,))
                write_table(path, model, answers)
    write_table(path, model, answers)
    for form in ("chat", "cloze"):
        known = [a for a in answers.values() if a["form"] == form and a["known"]]
        print(f"{form}: {len(known)} of {len(facts)} known")
    print(path)


if __name__ == "__main__":
    main()
