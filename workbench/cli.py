"""The command line: ``workbench facts | demo | sweep | lab | export``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from workbench.files.paths import user_path


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. Expected errors are printed in one line, without a traceback."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.run is not _lab:
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    args.options = rest
    try:
        return args.run(args)
    except (ValueError, KeyError, OSError, ArithmeticError) as error:  # a loss that became infinite
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"workbench: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        said = " ".join(getattr(interrupt, "__notes__", ["nothing was changed."]))
        print(f"workbench: interrupted; {said}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="workbench", description="Trace, edit and honestly evaluate facts in a model."
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    facts = commands.add_parser("facts", help="list the bundled facts and which the bundled model knows")
    facts.add_argument("--relation", help="only this relation")
    facts.add_argument("--known", action="store_true", help="only facts known in chat form")
    facts.set_defaults(run=_facts)

    demo = commands.add_parser("demo", help="trace, edit and evaluate one fact; write a report")
    demo.add_argument("--fact", default="france-capital", help="a fact id (default: %(default)s)")
    demo.add_argument("--out", type=user_path, default=Path("out/demo"), help="folder to write (default: %(default)s)")
    demo.add_argument("--recipe", default="unlearn-then-learn", help="a built-in recipe (default: %(default)s)")
    demo.add_argument(
        "--max-controls",
        type=_positive,
        metavar="N",
        help="draw at most so many controls, and at most so many neighbours (default: 30; all with --full)",
    )
    demo.add_argument(
        "--full",
        action="store_true",
        help="ask every stage everything: training, reversed and two-hop questions, ordinary text (takes longer)",
    )
    demo.add_argument("--seed", type=int, default=0)
    demo.set_defaults(run=_demo)

    sweep = commands.add_parser("sweep", help="apply a function to many facts, resumable, one file a result")
    sweep.add_argument(
        "function", help="trace, attribute, ablate, edges, lens, rewrite, evaluate, probe, compare, or module:function"
    )
    sweep.add_argument("--out", type=user_path, required=True, help="folder for results; the same again goes on")
    sweep.add_argument("--facts", type=user_path, metavar="FILE", help="a file of facts (default: the bundled ones)")
    sweep.add_argument("--relation", help="only this relation")
    sweep.add_argument("--split", choices=("dev", "test"), help="only this split")
    sweep.add_argument("--known", action="store_true", help="only facts that the model knows")
    sweep.add_argument("--first", type=_positive, metavar="N", help="at most so many")
    sweep.add_argument(
        "--results-of", type=user_path, metavar="DIR", help="go over the results of another sweep (edits, for probe)"
    )
    sweep.add_argument("--model", metavar="SOURCE", help="a folder, file or hub id (default: the bundled model)")
    sweep.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the function; several times"
    )
    sweep.add_argument("--workers", type=_positive, metavar="N", help="so many processes (default: this one)")
    sweep.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, tcp://... (the extra scale)")
    sweep.set_defaults(run=_sweep)

    export = commands.add_parser("export", help="write a notebook, with its panels, as one HTML page without a network")
    export.add_argument("notebook", type=user_path, help="the .ipynb file, as it was saved; it is not run")
    export.add_argument("--out", type=user_path, help="file to write (default: beside the notebook, .html)")
    export.set_defaults(run=_export)

    lab = commands.add_parser("lab", help="start JupyterLab on the start notebook; further options are passed on to it")
    lab.set_defaults(run=_lab)
    return parser


def _positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return int(text)


def _facts(args: argparse.Namespace) -> int:
    from workbench.facts.known import load_facts
    from workbench.facts.known_table import FORMS, known_on_record
    from workbench.models.load import load_model

    pool = load_facts()
    shown = pool.filter(relation=args.relation) if args.relation else pool
    on_record = known_on_record(load_model(), shown)
    counts = dict.fromkeys(FORMS, 0)
    print(f"{'id':36s} {'chat':5s}{'cloze':6s} {'split':5s} {'role':8s} answer -> target")
    for fact in shown:
        known = {form: form in (on_record[fact.id] or ()) for form in FORMS}
        for form in FORMS:
            counts[form] += known[form]
        if args.known and not known["chat"]:
            continue
        marks = "".join(f"{'yes' if known[form] else '-':{width}s}" for form, width in (("chat", 5), ("cloze", 6)))
        print(f"{fact.id:36s} {marks} {fact.split or '-':5s} {fact.role or '-':8s} {fact.answer} -> {fact.target}")
    print(f"{len(shown)} facts; known: {counts['chat']} in chat form, {counts['cloze']} in cloze form.")
    return 0


def _demo(args: argparse.Namespace) -> int:
    from workbench.demo import run_demo

    settings = {"recipe": args.recipe, "max_controls": args.max_controls, "seed": args.seed, "full": args.full}
    run_demo(args.fact, args.out, **settings)
    return 0


def _sweep(args: argparse.Namespace) -> int:
    from workbench.sweeps.command import run

    try:
        return run(args)
    except (TypeError, RuntimeError) as error:  # an option that the function does not take; a pool that died
        raise ValueError(str(error)) from error


def _export(args: argparse.Namespace) -> int:
    from workbench.plots.notebook_page import export_notebook

    print(f"Wrote {export_notebook(args.notebook, args.out)}")
    return 0


def _lab(args: argparse.Namespace) -> int:
    from workbench.lab import start_lab

    start_lab(args.options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
