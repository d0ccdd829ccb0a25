"""``python -m benchmarks``: what the README, the docs and the notebooks quote, the short measurements first.

Six are not among them, for they take options, days or what others leave: ``circuits_of_facts``, ``dry_runs``,
``editors``, ``lenses``, ``reproduction`` and ``thousand_facts``. Their commands are in
``benchmarks/results/README.md``.

Markdown tables go to the terminal, numbers to ``benchmarks/results/``. Edits that were measured with the same settings
are taken from there: remove one (``python -m benchmarks.lib.kept remove``) to measure it again. On 2 cores the edits
alone take several hours from nothing.
"""

from __future__ import annotations

from benchmarks import (
    arms,
    clicks,
    edit_quality,
    first_run,
    frontier,
    intervals,
    levers,
    memory,
    paper,
    quickstart,
    readme,
    soft_forgetting,
    speed_circuits,
    speed_fit,
    speed_trace,
    tasks,
    tune,
    two_schools,
)

if __name__ == "__main__":
    print(f"\n# {speed_trace.__name__}\n", flush=True)
    speed_trace.main(["--growth"])
    rounded = ["--dtype", "bfloat16", "--out", "benchmarks/results/speed_trace_bfloat16.json"]
    rounded += ["--swaps", "michael-jordan-sport", "athens-country"]  # which it says in bfloat16 too
    rounded += ["--noisy", "michael-jordan-sport", "north-carolina-state-capital"]
    speed_trace.main([*rounded, "--only", "lens", "heads", "loop"])
    for part in (
        intervals,
        quickstart,
        readme,
        first_run,
        memory,
        tasks,
        speed_fit,
        clicks,
        soft_forgetting,
        paper,
        arms,
        edit_quality,
        frontier,
        tune,
        levers,
        two_schools,
        speed_circuits,  # last: it makes an environment, for which pip needs a package registry
    ):
        print(f"\n# {part.__name__}\n", flush=True)
        part.main()
