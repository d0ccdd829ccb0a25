"""How many facts a minute a sweep does, by workers: measured with one and two, and simulated beyond.

    python -m benchmarks.throughput [--facts N] [--model SOURCE] [--out FILE]

Measured: heads by the gradient of N known facts on a Dask ``LocalCluster`` of one worker and of two, one thread each,
and what the scheduler costs: seconds an item that computes nothing. A third sweep is killed in the middle, and resumed:
nothing is computed twice, and the results are the same.

Simulated: workers take the time of an item, drawn from the measured ones, and one process (the scheduler and the one
that writes) serves what is finished, one after the other, for the measured cost of an item. That is a queue with one
server, so throughput grows with workers up to one item a service time; what it leaves out is named in
docs/results/throughput.md. Writes ``benchmarks/results/throughput.json``, ``docs/results/throughput.md`` and
``docs/images/throughput.png``, with ``--out`` only the numbers. Run it where nothing else runs: two workers need two
cores of their own.
"""

from __future__ import annotations

import argparse
import heapq
import json
import multiprocessing
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.lib.code import code_of
from workbench.files.atomic import write_bytes
from workbench.models.load import LoadedModel

RESULTS, PAGE, FIGURE = (
    Path("benchmarks/results/throughput.json"),
    Path("docs/results/throughput.md"),
    Path("docs/images/throughput.png"),
)
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MEASURED = (1, 2)
EMPTY_ITEMS = 200
SEED = 0


def nothing(model: LoadedModel, item: str) -> int:
    """What an item costs that computes nothing."""
    return len(item)


def simulated(seconds: Sequence[float], service: float, workers: int, items: int, seed: int = SEED) -> float:
    """Items a minute of so many workers and one server.

    Args:
        seconds: Of items, of which each item's time is drawn.
        service: Seconds of the server for each item, one after the other.
        workers: How many.
        items: How many there are.
        seed: Of the draws.

    Returns:
        Items a minute, from the first item's start to the last one's end. A worker is given its next item when its last
        one was served.
    """
    rng = random.Random(seed)
    ends = [(0.0, at) for at in range(min(workers, items))]
    running = [(rng.choice(seconds), at) for _, at in ends]
    heapq.heapify(running)
    free, started, done = 0.0, len(running), 0
    while running:
        ready, at = heapq.heappop(running)
        free = max(free, ready) + service
        done += 1
        if started < items:
            heapq.heappush(running, (free + rng.choice(seconds), at))
            started += 1
    return 60 * done / free


def swept(facts: Any, out: Path, workers: int, source: str | None) -> tuple[float, wb.SweepResults]:
    """Seconds of a sweep of heads on so many workers, models loaded before; and its results."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as one,
    ):
        executor = one.get_executor()
        options: dict[str, Any] = {"corruption": "swap", "form": "cloze", "method": "attribution"}
        for at in range(2 * workers):  # each worker loads the model
            wb.sweep(
                wb.attribute,
                facts[:2],
                out=out / f"warm-{at}",
                executor=executor,
                model=source,
                progress=False,
                **options,
            )
        began = time.perf_counter()
        results = wb.sweep(
            wb.attribute, facts, out=out / "swept", executor=executor, model=source, progress=False, **options
        )
        return time.perf_counter() - began, results


def service_seconds(out: Path, source: str | None) -> float:
    """Seconds an item of the scheduler and the writer: of items that compute nothing, on one worker."""
    from distributed import Client, LocalCluster

    items = {f"item {i}": f"{i}" for i in range(EMPTY_ITEMS)}
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as one:
        executor = one.get_executor()
        wb.sweep(nothing, {"first": "0"}, out=out / "warm", executor=executor, model=source, progress=False)
        began = time.perf_counter()
        wb.sweep(nothing, items, out=out / "empty", executor=executor, model=source, progress=False)
        return (time.perf_counter() - began) / EMPTY_ITEMS


def sweep_in_process(ids: Sequence[str], out: str, source: str | None) -> None:
    """What the process does that is killed."""
    facts = [wb.load_facts()[id] for id in ids]
    options: dict[str, Any] = {"corruption": "swap", "form": "cloze", "method": "attribution"}
    wb.sweep(wb.attribute, facts, out=out, model=source, progress=False, **options)


def killed_and_resumed(facts: Any, out: Path, source: str | None) -> dict[str, Any]:
    """A sweep whose process is killed after a third of the facts, and resumed.

    Returns:
        How many items were there when it was killed, how many the second call computed, and whether all are the same as
        those of an uninterrupted sweep.
    """
    ids, folder = [fact.id for fact in facts], out / "killed"
    process = multiprocessing.get_context("spawn").Process(target=sweep_in_process, args=(ids, str(folder), source))
    process.start()
    assert process.pid is not None
    while len([*(folder / "items").glob("*.zip")]) < len(ids) // 3:
        if not process.is_alive():
            raise RuntimeError(f"The sweep ended before it was killed, with the exit code {process.exitcode}.")
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    there = {path.name: path.stat().st_mtime_ns for path in (folder / "items").glob("*.zip")}
    sweep_in_process(ids, str(folder), source)
    sweep_in_process(ids, str(out / "whole"), source)
    resumed, whole = wb.load_sweep(folder), wb.load_sweep(out / "whole")
    kept = all((folder / "items" / name).stat().st_mtime_ns == when for name, when in there.items())
    same = list(resumed) == list(whole) and all(bool((resumed[id].values == whole[id].values).all()) for id in whole)
    return {
        "finished when killed": len(there),
        "of": len(ids),
        "kept as they were": kept,
        "same as uninterrupted": same,
    }


def table(found: dict[str, Any]) -> str:
    """Facts a minute by workers, in Markdown."""
    lines = ["| workers | facts a minute, measured | simulated | of so many times one worker |", "|---|---|---|---|"]
    first = found["simulated"]["1"]
    for n in WORKERS:
        measured = found["measured"].get(str(n))
        shown = "" if measured is None else f"{measured:.1f}"
        lines.append(f"| {n} | {shown} | {found['simulated'][str(n)]:.1f} | {found['simulated'][str(n)] / first:.2f} |")
    return "\n".join(lines)


def page(found: dict[str, Any]) -> str:
    """The page of the docs."""
    kill, two = found["killed"], found["measured"]["2"] / found["measured"]["1"]
    kept = "were kept as they were" if kill["kept as they were"] else "were NOT kept"
    same = "the same" if kill["same as uninterrupted"] else "NOT the same"
    return f"""# Throughput of sweeps

How many facts a minute `wb.sweep` does, by workers: {found["what"]}, {found["facts"]} facts, one thread a worker.
Measured with one and two workers of a Dask `LocalCluster`; beyond that by simulation.

![Facts a minute by workers: measured with one and two, simulated beyond](../images/throughput.png)

{table(found)}

Two workers did {two:.2f} times as many facts a minute as one.

## The model of the simulation

An item takes {found["item seconds"]:.3f} s on a worker (median of the measured ones, from which each item's time is
drawn). One process, in which the scheduler hands out items and results are written, serves what is finished, one after
the other, {1000 * found["service seconds"]:.1f} ms an item: measured on one worker with {EMPTY_ITEMS} items that
compute nothing, the way there and back included, so that it is rather too much. Throughput grows with workers up to
{60 / found["service seconds"]:,.0f} items a minute, whatever an item takes. The model leaves out what grows with
distance and with crowds: networks, disks that many workers read a model from, cores that share memory, machines that
come late or die.

## Killed and resumed

A sweep of {kill["of"]} facts was killed (SIGKILL) when {kill["finished when killed"]} had finished. These {kept} by the
call that resumed it, and all results were {same} as those of a sweep that nobody interrupted.

`python -m benchmarks.throughput` measures it again and writes this page.
"""


def draw(found: dict[str, Any], path: Path) -> None:
    """The figure: measured points, the simulated curve, and what no scheduler's cost would give."""
    import plotly.graph_objects as go

    first = found["simulated"]["1"]
    figure = go.Figure()
    figure.add_scatter(
        x=WORKERS, y=[first * n for n in WORKERS], name="proportional", line={"dash": "dot", "color": "#888"}
    )
    simulated_y = [found["simulated"][str(n)] for n in WORKERS]
    figure.add_scatter(x=WORKERS, y=simulated_y, name="simulated", line={"color": "#0072b2"})
    measured_y = [found["measured"][str(n)] for n in MEASURED]
    marks = {"size": 11, "color": "#d55e00"}
    figure.add_scatter(x=MEASURED, y=measured_y, name="measured", mode="markers", marker=marks)
    figure.update_xaxes(title="workers", type="log", tickvals=WORKERS)
    figure.update_yaxes(title="facts a minute", type="log")
    figure.update_layout(template="plotly_white", width=720, height=420, margin={"t": 20})
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_image(path, scale=2)


def measure(facts: Any, source: str | None, what: str) -> dict[str, Any]:
    """All of it."""
    with tempfile.TemporaryDirectory() as name:
        out, measured, items = Path(name), {}, []
        for workers in MEASURED:
            took, results = swept(facts, out / str(workers), workers, source)
            done = len(results)
            measured[str(workers)] = 60 * done / took
            items = items or [results.details(id)["seconds"] for id in results]
        service = service_seconds(out, source)
        killed = killed_and_resumed(facts, out, source)
    return {
        "what": what,
        "facts": len(facts),
        "cores": os.cpu_count(),
        "measured": measured,
        "item seconds": statistics.median(items),
        "service seconds": service,
        "simulated": {str(n): simulated(items, service, n, max(1000, 20 * n)) for n in WORKERS},
        "killed": killed,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, simulate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=60, help="how many; the first of those that are drawn")
    parser.add_argument("--model", help="a folder or hub id instead of the bundled model")
    parser.add_argument("--out", type=Path, help="write the numbers into this file only, and neither page nor figure")
    args = parser.parse_args([] if argv is None else argv)
    code = code_of(__file__).to_dict()
    from benchmarks.thousand_facts import drawn

    known = wb.known_facts(wb.load_model(args.model), form="cloze")
    found = {
        "code": code,
        **measure(drawn(known)[: args.facts], args.model, "heads by the gradient of the bundled model"),
    }
    print(table(found), json.dumps(found["killed"]), sep="\n")
    write_bytes(args.out or RESULTS, json.dumps(found, indent=1).encode())
    if args.out is None:
        write_bytes(PAGE, page(found).encode())
        draw(found, FIGURE)


if __name__ == "__main__":
    from benchmarks import throughput  # by its name, under which workers find what is swept

    throughput.main(sys.argv[1:])
