"""Runs as folders: ``run.json`` says what the run is and which parts there are, each a file of its own kind beside it.

A folder is written once. What comes later (another name, probes) is written beside what is there, ``run.json`` last,
so that a run is whole at any moment.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from workbench.files.atomic import new_folder, rename, write_bytes
from workbench.files.checked_json import RETRY_HINT, dump, errors_name, parse, unwrap, wrap
from workbench.files.edits import load_edit, save_edit
from workbench.files.effect_maps import load_effect_map, save_effect_map
from workbench.files.probes import load_probes, save_probes
from workbench.files.reports import load_report, save_report
from workbench.types import Selection
from workbench.types.run import Run

RUN_FILE = "run.json"
REPORT_FILE, CONTROL_FILE, PROBES_FILE = "report.json", "control_report.json", "probes.json"
_PLAIN = ("id", "name", "code", "when", "seconds", "ended")


def save_run(run: Run, folder: Path) -> Path:
    """Write a run to a folder that is not there yet; it appears whole or not at all.

    Raises:
        FileExistsError: The folder is there already.
        OSError: It cannot be written.
    """
    with new_folder(folder, lambda _: False) as new:
        fill_run_folder(run, new)
    return folder


def fill_run_folder(run: Run, folder: Path) -> None:
    """Write a run into an empty folder."""
    for name, effect in run.maps.items():
        (folder / "maps").mkdir(exist_ok=True)
        save_effect_map(effect, folder / "maps" / f"{name}.safetensors")
    save_edit(run.edit, folder / "edit")
    if run.report is not None:
        save_report(run.report, folder / REPORT_FILE)
    if run.control_report is not None:
        save_report(run.control_report, folder / CONTROL_FILE)
    update_run(run, folder)


def update_run(run: Run, folder: Path) -> None:
    """Write what may change of a run that is there: its probes, then its name.

    Raises:
        OSError: It cannot be written; the run is as it was, or has its new probes already.
    """
    if run.probes is not None:
        save_probes(run.probes, folder / PROBES_FILE)
    fields = {
        **{name: getattr(run, name) for name in _PLAIN},
        "edit_id": run.edit.id,
        "selection": [str(component) for component in run.selection],
        "maps": list(run.maps),
        "report": run.report is not None,
        "control_report": run.control_report is not None,
        "probes": run.probes is not None,
    }
    write_bytes(folder / RUN_FILE, dump(wrap("workbench-run", fields)))


def load_run(folder: Path) -> Run:
    """Read a run.

    Raises:
        ValueError: It is no run, of a newer schema version, incomplete or damaged; the message says which.
    """
    file = folder / RUN_FILE
    try:
        fields = unwrap("workbench-run", parse(file.read_bytes(), file), file)
        with errors_name(folder):
            run = Run(
                **{name: fields[name] for name in _PLAIN},
                edit=load_edit(folder / "edit"),
                selection=Selection(fields["selection"]),
                maps={name: load_effect_map(folder / "maps" / f"{name}.safetensors") for name in fields["maps"]},
                report=load_report(folder / REPORT_FILE) if fields["report"] else None,
                control_report=load_report(folder / CONTROL_FILE) if fields["control_report"] else None,
                probes=load_probes(folder / PROBES_FILE) if fields["probes"] else None,
            )
            if run.edit.id != fields["edit_id"]:
                raise ValueError(f"its edit is {run.edit.id[:16]}, and {RUN_FILE} is of {fields['edit_id'][:16]}.")
            if run.id != folder.name:
                raise ValueError(f"it is the run {run.id!r} in a folder of another name.")
    except FileNotFoundError as error:
        raise ValueError(f"The run {folder} is incomplete: {error} {RETRY_HINT}") from error
    return run


def remove_run(folder: Path) -> None:
    """Remove a run's folder; at once, whatever ends this half way."""
    hidden = folder.with_name(f".{folder.name}.deleted")
    if folder.exists():
        shutil.rmtree(hidden, ignore_errors=True)
        rename(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)
