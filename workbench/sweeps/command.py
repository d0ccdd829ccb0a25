"""The command ``workbench sweep``: options, and an executor made of them."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
from collections.abc import Generator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from workbench.facts.known import known_facts, load_facts
from workbench.models.load import load_model
from workbench.sweeps.results import SweepResults, load_sweep
from workbench.sweeps.sending import EXTRA
from workbench.sweeps.sweep import sweep
from workbench.sweeps.worker import said

OWN = ("model", "facts_or_contrasts", "out", "executor", "progress", "cancel", "on_item", "other_code")
"""What ``wb.sweep`` takes for itself, which is no option of the function."""
FUNCTIONS = {
    "trace": "workbench.tracing.causal:causal_trace",
    "attribute": "workbench.tracing.attribution:attribute",
    "ablate": "workbench.tracing.ablation:ablate",
    "edges": "workbench.circuits.edges:edges",
    "lens": "workbench.tracing.lens:lens",
    "rewrite": "workbench.editing.rewrite:rewrite",
    "evaluate": "workbench.evaluation.evaluate:evaluate",
    "probe": "workbench.probing.probe:probe",
    "compare": "workbench.comparing.compare:compare",
}
"""By the name on the command line."""


def run(args: argparse.Namespace) -> int:
    """Sweep as the options say, and print what became of it. Returns the exit status: 1 where something failed.

    Raises:
        ValueError: An option that does not fit, or as ``sweep``.
    """
    function = named_function(args.function)
    options = _options(args.set)
    items = _items(args)
    with _executor(args) as executor:
        results = sweep(function, items, out=args.out, executor=executor, model=args.model, **options)
    print(f"{len(results)} of {len(results) + len(results.failed) + len(results.pending)} items in {results.path}.")
    for failure in results.failed.values():
        print(f"failed: {failure}")
    return 1 if results.failed else 0


def named_function(name: str) -> Any:
    """A function by its name in the table, or by ``module:function``.

    Raises:
        ValueError: There is none.
    """
    module, colon, function = FUNCTIONS.get(name, name).partition(":")
    if not colon:
        raise ValueError(f"There is no function {name!r}: it is one of {', '.join(FUNCTIONS)}, or module:function.")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{name!r} cannot be imported ({error}). Its module must be on the path: PYTHONPATH=. workbench sweep ..."
        ) from error
    except (Exception, SystemExit) as error:  # whatever a module raises when it is imported
        raise ValueError(
            f"{name!r} cannot be imported: its module ended with {type(error).__name__} ({said(error)}). Mend it so "
            f"that `import {module}` works."
        ) from error


def _options(settings: Sequence[str]) -> dict[str, Any]:
    """Options of the function by name.

    Raises:
        ValueError: One is given twice, or as ``setting``.
    """
    options: dict[str, Any] = {}
    for name, value in map(setting, settings):
        if name in options:
            raise ValueError(f"--set {name}= is given more than once: give one value. A list is {name}='[1, 2]'.")
        options[name] = value
    return options


def setting(text: str) -> tuple[str, Any]:
    """An option of the function, ``name=value``, the value as JSON where it is that, else as text.

    Raises:
        ValueError: It has no ``=``.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--set takes name=value, got {text!r}.")
    if name in OWN:
        raise ValueError(f"--set gives options of the function; {name!r} is one of the sweep's own: see --help.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _items(args: argparse.Namespace) -> Any:
    if args.results_of is not None:
        beside = {"--relation": args.relation, "--split": args.split, "--known": args.known, "--facts": args.facts}
        if given := [name for name, value in beside.items() if value]:
            raise ValueError(
                f"--results-of takes all that finished there; {', '.join(given)} would choose facts instead."
            )
        done: SweepResults = load_sweep(args.results_of)
        return {id: done[id] for id in [*done][: args.first or None]}
    chosen = load_facts(args.facts).filter(relation=args.relation, split=args.split)
    if args.known:
        chosen = known_facts(load_model(args.model), chosen)
    return chosen[: args.first] if args.first else chosen


@contextmanager
def _executor(args: argparse.Namespace) -> Generator[Executor | None]:
    if args.scheduler is not None:
        try:
            from distributed import Client
        except ImportError as error:
            raise ValueError(f"--scheduler needs Dask: {EXTRA}.") from error
        with Client(args.scheduler) as client:
            yield client.get_executor()
    elif args.workers is not None:
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(args.workers, mp_context=spawn, initializer=_leave_interrupts)
        try:
            yield pool
        except KeyboardInterrupt:
            for process in [*pool._processes.values()]:
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    else:
        yield None


def _leave_interrupts() -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the one that runs the sweep."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
