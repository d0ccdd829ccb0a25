"""How long the first minutes take: the demo, and JupyterLab until the first picture that answers a click.

    python -m benchmarks.first_run
    python -m benchmarks.first_run --environment    # makes an environment too, in a temporary folder

Needs Chromium and the bundled model. The demo runs in a process of its own, as `make demo` and with all controls; in
JupyterLab the stored start notebook is opened, its cell run, and a head clicked as soon as there is a map of them. The
model is converted into an empty cache folder. Prints a Markdown table and writes
``benchmarks/results/first_run.json``; what was not measured this time stays there as it was. On a busy machine the
times say nothing: the load is written beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.lib.code import code_of
from tests.browser.conftest import Notebook, serve
from tests.browser.test_picker import point, root
from tests.conftest import CHROMIUM, CHROMIUM_ARGS
from workbench.lab import NOTEBOOKS, START

OUT = Path("benchmarks/results/first_run.json")
GOAL = 150
"""Seconds of the demo, at most."""
MAPS = 300_000
"""Milliseconds until a map must be there."""


def main(argv: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*PARTS], default=None, help="measure only these")
    parser.add_argument("--environment", action="store_true", help="make an environment too (minutes, gigabytes)")
    args = parser.parse_args([] if argv is None else argv)
    wanted = args.only or [name for name in PARTS if name != "environment" or args.environment]
    results: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    for name in wanted:
        load = os.getloadavg()[0]
        results[name] = {**PARTS[name](), "cores": os.cpu_count(), "load_before": round(load, 1)}
        if "demo" in results:
            results["met"] = {f"the demo in under {GOAL} s": results["demo"]["seconds"] < GOAL}
        results["code"] = code_of(__file__, without=()).to_dict()
        OUT.write_text(json.dumps(results, indent=1))
    print("| what | seconds |\n|---|---|")
    for name in PARTS:
        if name in results:
            print(f"| {name} | {results[name]['seconds']} |")


def timed(command: list[str], **environment: str) -> float:
    """Wall seconds of a command; its output is shown if it fails."""
    began = time.perf_counter()
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return round(time.perf_counter() - began, 1)


def demo(*options: str) -> dict[str, Any]:
    """The demo as a command, start of the process included, with what its parts took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "workbench.cli", "demo", "--out", folder, *options]
        seconds = timed(command, HF_HUB_OFFLINE="1")
        summary = json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))
    rows = summary["report"]["rows"]
    controls = len({row["fact_id"] for row in rows if row["group"] == "control"})
    return {"seconds": seconds, "controls": controls, "parts": summary["seconds"]}


def full_demo() -> dict[str, Any]:
    """The demo with all controls."""
    return demo("--full")


def conversion() -> dict[str, Any]:
    """Loading the bundled model for the first time, and what its conversion takes on the disk."""
    with tempfile.TemporaryDirectory() as cache:
        load = [sys.executable, "-c", "import workbench; workbench.load_model()"]
        first, again = (timed(load, WORKBENCH_CACHE=cache) for _ in range(2))
        return {"seconds": first, "seconds_cached": again, "gigabytes": gigabytes(Path(cache))}


def environment() -> dict[str, Any]:
    """`make env` in a copy of the checkout, and what the environment takes on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
            shutil.copy(name, folder)
        shutil.copytree("workbench", Path(folder, "workbench"))
        return {"seconds": timed(["make", "-C", folder, "env"]), "gigabytes": gigabytes(Path(folder, ".venv"))}


def gigabytes(folder: Path) -> float:
    """What a folder takes on the disk."""
    return round(sum(512 * os.lstat(path).st_blocks for path in folder.rglob("*")) / 1e9, 2)


def lab() -> dict[str, Any]:
    """From the start of JupyterLab to a click on a head that Python has answered, each time since the one before."""
    began = time.perf_counter()
    times: dict[str, float] = {}

    def reached(name: str) -> None:
        times[name] = round(time.perf_counter() - began - sum(times.values()), 1)

    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGS)
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        home, folder = Path(temporary, "home"), Path(temporary, "notebooks")
        home.mkdir()
        folder.mkdir()
        shutil.copy(NOTEBOOKS / START, folder)
        began = time.perf_counter()
        with serve(home, folder) as running:
            reached("server")
            notebook = Notebook(page, running, START)
            notebook.open()
            reached("page with a kernel")
            notebook.run_all()
            expect(page.locator(".wb-panel").first).to_be_visible()
            reached("cell")
            first_click(page, reached)
            assert notebook.ask("[str(c) for c in app.picker.selection]") == ["L23H4"]
        browser.close()
    return {"seconds": round(sum(times.values()), 1), "parts": times}


def first_click(page: Page, reached: Callable[[str], None]) -> None:
    """Open the circuit, and click a head as soon as there is a map of heads."""
    page.locator(".wb-panel").first.get_by_role("tab", name="2 Circuit").click()
    expect(root(page, "Heads").locator(".hg-title")).to_have_text(re.compile(r"\(attribution|\(patching"), timeout=MAPS)
    reached("map of heads")
    page.mouse.click(*point(page, "Heads", 23, 4))
    expect(root(page, "Heads").locator(".hg-status")).to_have_text("1 head selected", timeout=MAPS)
    reached("click answered")


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "environment": environment,
    "conversion": conversion,
    "lab": lab,
    "demo": demo,
    "full demo": full_demo,
}

if __name__ == "__main__":
    main(sys.argv[1:])
