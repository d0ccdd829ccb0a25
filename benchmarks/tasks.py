"""What the bundled model makes of the bundled tasks.

    python -m benchmarks.tasks [--only ioi greater-than]

Of every item the last position's logits of both prompts are read, float32. An item is right where the answer's logit is
above the wrong answer's (several tokens count as the log of the sum of their exponentials); that is weak, so beside it
stands whether the likeliest next token is the answer. Intervals take items. Writes ``benchmarks/results/tasks.json``,
with every item and the tables of docs/results/tasks.md. With ``--only`` the other tasks stay as they were where code
and model are the same, else they are dropped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.lib.code import code_of
from workbench.facts.tasks import TASKS
from workbench.files.atomic import write_bytes
from workbench.language.contrasts import prepare
from workbench.language.scoring import READ_AT_ONCE, read_logits
from workbench.language.tokens import token_text
from workbench.models.load import LoadedModel
from workbench.tracing.metric import METRICS
from workbench.types import Rate
from workbench.types.intervals import mean_over

RESULTS = Path("benchmarks/results/tasks.json")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a model makes of one contrast.

    Args:
        id, split, kind: Of the item.
        clean, corrupted: Logit of the answer minus that of the wrong answer, after each prompt.
        token: The likeliest next token after the clean prompt.
        said: Whether it is the answer.
    """

    id: str
    split: str
    kind: str
    clean: float
    corrupted: float
    token: str
    said: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, logits to 4 decimals."""
        return vars(self) | {"clean": round(self.clean, 4), "corrupted": round(self.corrupted, 4)}


MEASURES: dict[str, Callable[[Measured], float]] = {
    "right": lambda row: float(row.clean > 0),
    "said": lambda row: float(row.said),
    "turned": lambda row: float(row.corrupted < 0),
    "clean": lambda row: row.clean,
    "corrupted": lambda row: row.corrupted,
}
"""``right``: the answer is above the wrong one; ``said``: it is the likeliest token; ``turned``: after the corrupted
prompt the wrong one is above; ``clean`` and ``corrupted``: the logit difference after each prompt."""
SHARES = ("right", "said", "turned")


def measured(model: LoadedModel, task: wb.TaskSet) -> list[Measured]:
    """Both prompts of every contrast of a task."""
    ready = [prepare(model, contrast) for contrast in task]
    runs = [ids for one in ready for ids in (one.clean, one.corrupted) if ids is not None]
    last = {i: logits[0] for i, logits in read_logits(model, runs, [()] * len(runs), READ_AT_ONCE)}
    out: list[Measured] = []
    for i, (contrast, one) in enumerate(zip(task, ready, strict=True)):
        clean, corrupted = (
            float(METRICS["logit_diff"].measure(last[2 * i + run][None].float(), one.prompt)[0]) for run in (0, 1)
        )
        token = int(last[2 * i].argmax())
        out.append(
            Measured(
                id=contrast.id,
                split=task.splits[contrast.id],
                kind=task.kinds[contrast.id],
                clean=clean,
                corrupted=corrupted,
                token=token_text(model, token),
                said=token in one.answer_ids,
            )
        )
    return out


def rates(rows: Iterable[Measured]) -> dict[str, Any]:
    """The means of some items, with intervals."""
    rows = list(rows)
    return {"items": len(rows)} | {
        name: as_dict(mean_over({row.id: [value(row)] for row in rows})) for name, value in MEASURES.items()
    }


def as_dict(rate: Rate) -> dict[str, float]:
    return {"value": round(rate.value, 4), "low": round(rate.low, 4), "high": round(rate.high, 4)}


def summary(rows: Sequence[Measured]) -> dict[str, Any]:
    """A task's means: of all items, of each half and of each kind, and the items that are not right."""

    def by(name: str) -> dict[str, Any]:
        values = dict.fromkeys(getattr(row, name) for row in rows)
        return {value: rates(row for row in rows if getattr(row, name) == value) for value in values}

    return {
        "all": rates(rows),
        "splits": by("split"),
        "kinds": by("kind"),
        "not_right": [row.id for row in rows if row.clean <= 0],
        "rows": [row.to_dict() for row in rows],
    }


def cells(found: dict[str, Any]) -> str:
    """The number of items and the means, as cells of a Markdown table."""

    def cell(name: str) -> str:
        rate, sign = found[name], "" if name in SHARES else "+"
        return f"{rate['value']:{sign}.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"

    return " | ".join([str(found["items"]), *map(cell, MEASURES)])


HEAD = "items | right | said | turned | clean | corrupted |"


def tables(tasks: dict[str, Any]) -> dict[str, str]:
    """The tables of the docs: a row a task, and a row a kind."""
    rule = "|---" * len(MEASURES) + "|---"
    whole = [f"| task | {HEAD}", f"|---{rule}|", *(f"| `{n}` | {cells(t['all'])} |" for n, t in tasks.items())]
    kinds = [f"| task | kind | {HEAD}", f"|---|---{rule}|"]
    kinds += [f"| `{n}` | {kind} | {cells(found)} |" for n, t in tasks.items() for kind, found in t["kinds"].items()]
    return {"tasks": "\n".join(whole), "kinds": "\n".join(kinds)}


def main(argv: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=TASKS, help="measure only these")
    args = parser.parse_args([] if argv is None else argv)
    code = code_of(__file__).to_dict()
    model = wb.load_model()
    before: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    same = before.get("code", {}).get("sha256") == code["sha256"] and before.get("model") == model.fingerprint
    tasks = dict(before["tasks"]) if same else {}
    for name in args.only:
        tasks[name] = summary(measured(model, wb.load_task(name)))
        print(f"{name}: {cells(tasks[name]['all'])}", flush=True)
    tasks = {name: tasks[name] for name in TASKS if name in tasks}
    result = {"code": code, "model": model.fingerprint, "tables": tables(tasks), "tasks": tasks}
    print(result["tables"]["tasks"], result["tables"]["kinds"], sep="\n\n")
    write_bytes(RESULTS, json.dumps(result, indent=1, ensure_ascii=False).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
