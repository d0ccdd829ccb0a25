"""Which controls the untouched bundled model loses by itself: asked one at a time, and with weights in bfloat16.

    python -m benchmarks.firm_controls [--most 400]

Asked are the known facts of the test split, from which ``evaluate`` takes its controls. What the model says is written
to ``workbench/evaluation/data/firm/<fingerprint>.json``, so that every evaluation counts firm controls apart without
asking. Facts that are on record are not asked again; ``--most`` ends a run early, and the next one goes on.
"""

from __future__ import annotations

import argparse

import workbench as wb
from workbench.evaluation.answering import Answering
from workbench.evaluation.firmness import flips_of, on_record, said_again, write_record
from workbench.facts.known_table import answer_keys

PART = 48


def main() -> None:
    """Ask what is not on record, write it, and print the controls that are lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=10_000)
    args = parser.parse_args()
    model = wb.load_model()
    answering = Answering(model)
    facts = list(wb.known_facts(model, wb.load_facts().core.filter(split="test"), progress=False))
    keys = dict(zip((f.id for f in facts), answer_keys(model, [("chat", f.question) for f in facts]), strict=True))
    missing = [f for f in facts if keys[f.id] not in on_record(model.fingerprint)][: args.most]
    for start in range(0, len(missing), PART):
        said = said_again(answering, missing[start : start + PART])
        record = {**on_record(model.fingerprint), **{keys[id]: texts for id, texts in said.items()}}
        path = write_record(model.fingerprint, record)
        on_record.cache_clear()
        print(f"{start + len(said)} of {len(missing)}: {path}", flush=True)
    asked = [f for f in facts if keys[f.id] in on_record(model.fingerprint)]
    flips = flips_of(answering, asked) or ()
    for flip in flips:
        print(f"| {flip.fact_id} | {flip.condition} | {flip.text} |")
    lost = {flip.fact_id for flip in flips}
    print(f"{len(lost)} of {len(asked)} controls are lost by the untouched model in one condition or another.")


if __name__ == "__main__":
    main()
