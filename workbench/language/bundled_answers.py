"""Answers of the bundled model that the package ships, so that a first edit need not wait for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from workbench.files.atomic import write_bytes

VERSION = 1


AnswerKey = tuple[tuple[int, ...], int, tuple[int | str, ...]]
"""What a greedy answer depends on besides the weights: the prompt's tokens, the most that are generated, and what ends
it (token ids, then texts)."""


def hashed(key: AnswerKey) -> str:
    """A key as it is shipped."""
    return hashlib.sha256(repr(key).encode()).hexdigest()[:16]


def shipped_path(fingerprint: str) -> Path:
    """Where the answers of a model would be."""
    return Path(str(files("workbench").joinpath("language/data/answers"))) / f"{fingerprint[:16]}.json"


@lru_cache(maxsize=4)
def shipped_answers(fingerprint: str) -> Mapping[str, list[int]]:
    """Token ids of a model's answers by hashed key; none for a model that is not the bundled one."""
    path = shipped_path(fingerprint)
    if not path.is_file():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    return data["answers"] if (data["version"], data["fingerprint"]) == (VERSION, fingerprint) else {}


def write_shipped(fingerprint: str, answers: Mapping[str, Sequence[int]]) -> Path:
    """Write a model's answers; returns the file."""
    lines = [f"{json.dumps(key)}: {json.dumps(list(ids))}" for key, ids in sorted(answers.items())]
    head = f'{{"version": {VERSION}, "fingerprint": "{fingerprint}", "answers": {{'
    path = shipped_path(fingerprint)
    write_bytes(path, (head + "\n" + ",\n".join(lines) + "\n}}\n").encode())
    return path
