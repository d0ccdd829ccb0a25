"""Learning rates for the arms that move weights, full fine-tuning and LoRA: which of a few teaches dev facts best.

    python -m benchmarks.baseline_rates [--facts france-capital rio-de-janeiro-country]

A rate is better the sooner an arm is read, that is, has the new answer on its validation questions; of arms that are
never read, the one with more new answers. The default learning rates of ``wb.recipes.LoRA`` and
``wb.recipes.FullFineTuning`` are the outcome.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import workbench as wb
from benchmarks.tune import dev_controls
from workbench.comparing.arms import ARMS, Arm, ArmName, Plan, Planning
from workbench.evaluation.answering import Answering

TRIED: dict[ArmName, tuple[float, ...]] = {"lora": (1e-3, 3e-3, 1e-2, 3e-2), "full": (1e-5, 2e-5, 5e-5)}


def main() -> None:
    """Run and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", nargs="+", default=["france-capital", "rio-de-janeiro-country"])
    args = parser.parse_args()
    model, facts = wb.load_model(), wb.load_facts()
    dev, answering = facts.core.filter(split="dev"), Answering(model)
    print("| fact | arm | rate | read at step | new answer | controls | KL |\n|" + "---|" * 7)
    for fact in (facts[id] for id in args.facts):
        selection = wb.default_selection(model, fact, pool=dev, progress=False)
        others = dev_controls(model, dev, fact)
        for arm in TRIED:
            usual = ARMS[arm]
            for rate in TRIED[arm]:

                def at_this_rate(planning: Planning, rate: float = rate, usual: Arm = usual) -> list[Plan]:
                    return [replace(p, recipe=replace(p.recipe, learning_rate=rate)) for p in usual.plan(planning)]

                ARMS[arm] = replace(usual, plan=at_this_rate)
                table = wb.compare(
                    model, fact, selection, arms=[arm], controls=others, pool=dev, answering=answering, progress=False
                )
                (row,) = table.rows
                read = row.step if row.reached else f"not in {row.step}"
                rates = " | ".join(str(row.report.rate(name)) for name in ("new", "control", "kl"))
                print(f"| {fact.id} | {arm} | {rate:g} | {read} | {rates} |", flush=True)


if __name__ == "__main__":
    main()
