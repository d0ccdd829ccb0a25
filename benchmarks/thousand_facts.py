"""Traces and heads of all facts that the bundled model knows as clozes, by one sweep that can be stopped.

    python -m benchmarks.thousand_facts [--facts N] [--minutes M] [--workers W]

Facts are drawn by seed, in turn one of each relation, so that the first N are spread over all relations. Of each:
causal traces of MLP and attention outputs and exact patching of all heads, by a swap, in logit differences. A fact
without a partner to swap in is counted as failed. The sweep lies in ``out/thousand_facts``. What is finished is packed
into ``benchmarks/results/thousand_facts.tar.xz`` at the end and after Ctrl-C, values rounded to half precision, and the
next call goes on from there. ``benchmarks/results/thousand_facts.json`` says how many there are, and what failed.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import multiprocessing
import random
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.lib.code import code_of
from workbench.files.atomic import write_bytes
from workbench.files.item_file import item_bytes, read_item
from workbench.models.load import LoadedModel
from workbench.sweeps.folder import SweepFolder
from workbench.types.cancelling import Cancelled

FOLDER = Path("out/thousand_facts")
ARCHIVE = Path("benchmarks/results/thousand_facts.tar.xz")
SUMMARY = Path("benchmarks/results/thousand_facts.json")
SEED = 0


def maps_of(model: LoadedModel, fact: wb.Fact) -> dict[str, wb.EffectMap]:
    """The maps of one fact, by what a cell stands for."""
    options: dict[str, Any] = {"corruption": "swap", "metric": "logit_diff", "form": "cloze", "progress": False}
    traces = wb.causal_trace(model, fact, ["mlp", "attn"], **options)
    return {**traces, "head": wb.attribute(model, fact, "head", method="patching", **options)}


def drawn(facts: wb.FactSet, seed: int = SEED) -> list[wb.Fact]:
    """All facts in an order drawn by seed: in turn one of each relation that has more."""
    shuffled = sorted(facts, key=lambda fact: fact.id)
    random.Random(seed).shuffle(shuffled)
    by: dict[str, list[wb.Fact]] = {}
    for fact in shuffled:
        by.setdefault(fact.relation, []).append(fact)
    return [fact for turn in zip_longest(*by.values()) for fact in turn if fact is not None]


def unpack(archive: Path, folder: Path) -> None:
    """Put a packed sweep into a folder. What is there already stays as it is."""
    with tarfile.open(archive) as packed:
        for member in packed.getmembers():
            if not (folder / member.name).exists():
                packed.extract(member, folder, filter="data")


def pack(folder: Path, archive: Path) -> list[str]:
    """Write what is finished of a sweep into one small file, which `unpack` makes a sweep of again.

    Values are rounded to half precision (11 bits). Items say nothing of the computer that made them.

    Returns:
        Ids of the items in it.
    """
    source = SweepFolder(folder)
    settings = dict(source.settings() or {})
    done = [one for one in settings.get("items", ()) if source.item_path(one["id"]).exists()]
    with tempfile.TemporaryDirectory() as name:
        target = SweepFolder(name)
        target.begin()
        target.write_settings({**settings, "items": done})
        for one in done:
            result, fields = read_item(source.item_path(one["id"]))
            rounded = {key: replace(value, values=value.values.half().float()) for key, value in result.items()}
            content = item_bytes(rounded, {**fields, "worker": ""})
            target.item_path(one["id"]).write_bytes(content)
        write_bytes(archive, _tar(Path(name)))
    return [one["id"] for one in done]


def _tar(folder: Path) -> bytes:
    """All files below a folder as one compressed archive: the same files give the same bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size = path.stat().st_size
            packed.addfile(member, io.BytesIO(path.read_bytes()))
    return lzma.compress(stream.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def summary(results: wb.SweepResults, known: int, code: dict[str, Any]) -> dict[str, Any]:
    """How many facts there are, by relation, and how many failed of what."""
    failed = Counter(one.error for one in results.failed.values())
    relations = Counter(fact.relation for fact in results.facts)
    return {
        "code": code,
        "seed": SEED,
        "known as clozes": known,
        "finished": len(results),
        "failed": dict(failed.most_common()),
        "relations": dict(sorted(relations.items())),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Sweep, pack, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, help="only so many, the first of those drawn")
    parser.add_argument("--minutes", type=float, help="stop after so many of this process' processor time")
    parser.add_argument("--workers", type=int, help="processes; without, this one computes")
    args = parser.parse_args([] if argv is None else argv)
    code = code_of(__file__).to_dict()
    if ARCHIVE.exists():
        unpack(ARCHIVE, FOLDER)
    known = wb.known_facts(wb.load_model(), form="cloze")
    stop, limit = threading.Event(), (args.minutes or float("inf")) * 60

    def look(id: str, good: bool) -> None:
        if time.process_time() > limit:
            stop.set()

    with ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")
        pool = stack.enter_context(ProcessPoolExecutor(args.workers, mp_context=spawn)) if args.workers else None
        try:
            items = drawn(known)[: args.facts]
            wb.sweep(maps_of, items, out=FOLDER, executor=pool, cancel=stop, on_item=look, other_code=True)
        except (Cancelled, KeyboardInterrupt) as error:
            print(f"Stopped ({error!r}): the next call goes on.", flush=True)
    pack(FOLDER, ARCHIVE)
    found = summary(wb.load_sweep(FOLDER), len(known), code)
    write_bytes(SUMMARY, json.dumps(found, indent=1, ensure_ascii=False).encode())
    print(f"{found['finished']} of {found['known as clozes']} facts; {ARCHIVE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    from benchmarks import thousand_facts  # by its name, under which workers find what is swept

    thousand_facts.main(sys.argv[1:])
