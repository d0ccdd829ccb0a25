"""The table of families: what the suite of families wrote to ``docs/reference/families.json``, as Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docsite.api import cell

RESULTS = Path(__file__).parents[1] / "docs" / "reference" / "families.json"


def family_results(path: Path = RESULTS) -> str:
    """The versions, a row for each family and a column for each check, what is left out, and what is refused.

    Args:
        path: The results.

    Raises:
        ValueError: A check of some tiny model has failed or was not run: run the suite again.
    """
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    notes: list[str] = []
    keys = list(data["checks"])
    rows = ["| family | " + " | ".join(keys) + " | fast traces |", "|---" * (len(keys) + 2) + "|"]
    for family, classes in data["families"].items():
        tiny = {name: model for name, model in data["models"].items() if model["family"] == family}
        cells = [_cell(tiny, key, notes) for key in keys]
        plain = sorted({model["plain"] for model in tiny.values() if model["plain"]})
        fast = "yes" if not plain else f"no{_note(notes, f'{plain[0]}: one pass a cell')}"
        title = f"**{cell(family)}** ({', '.join(f'`{name}`' for name in classes)})"
        rows.append(f"| {title} | {' | '.join(cells)} | {fast} |")
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    checks = "\n".join(f"- **{key}**: {cell(words)}." for key, words in data["checks"].items())
    numbered = "\n".join(f"{i}. {cell(note)}" for i, note in enumerate(notes, 1))
    refused = "\n".join(f"| `{name}` | {cell(reason)} |" for name, reason in data["refused"].items())
    return (
        f"Measured on {len(data['models'])} tiny random models with {versions}.\n\n{checks}\n\n"
        + "\n".join(rows)
        + f"\n\nNotes:\n\n{numbered}\n\n## Refused\n\n| class | why |\n|---|---|\n{refused}"
    )


def _cell(models: dict[str, Any], key: str, notes: list[str]) -> str:
    """One family's cell: yes where all of its tiny models pass, with a note for what is left out."""
    said: list[str] = []
    outcomes: set[str] = set()
    for name, model in models.items():
        result = model["results"].get(key, {"outcome": "not run"})
        if result["outcome"] not in ("passed", "refused"):
            raise ValueError(
                f"The check {key!r} of the tiny model {name!r} is {result['outcome']!r} in {RESULTS.name}. Run "
                "`python -m benchmarks.families` and mend what fails."
            )
        outcomes.add(result["outcome"])
        said += [text for text in (result.get("reason"), result.get("without")) if text]
    word = "refused" if outcomes == {"refused"} else "yes" if outcomes == {"passed"} else "partly"
    return word + "".join(_note(notes, text) for text in dict.fromkeys(said))


def _note(notes: list[str], text: str) -> str:
    """The mark of a note, which is added where it is new."""
    if text not in notes:
        notes.append(text)
    return f" <sup>{notes.index(text) + 1}</sup>"
