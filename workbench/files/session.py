"""A session in a folder: the runs, and what is on screen: the fact or contrast, its maps, what is selected, the edit.

The folder holds the files that the modules beside this one write: ``maps/*.safetensors``, ``runs/*/`` (see ``runs``),
for an edit that is no run ``edit/``, ``report.json``, ``control_report.json`` and ``probes.json``, and
``session.json``, which names them. It appears whole or not at all; ``session_folder`` adds to one that is there.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workbench.files.atomic import contents, new_folder, write_bytes
from workbench.files.checked_json import RETRY_HINT, dump, errors_name, parse, unwrap, wrap
from workbench.files.contrasts import contrast_fields, contrast_from
from workbench.files.edits import load_edit, save_edit
from workbench.files.effect_maps import load_effect_map, save_effect_map
from workbench.files.paths import user_path
from workbench.files.probes import load_probes, save_probes
from workbench.files.reports import load_report, save_report
from workbench.files.runs import CONTROL_FILE, PROBES_FILE, REPORT_FILE, fill_run_folder, load_run
from workbench.types import Circuit, Contrast, Edit, EffectMap, EvalReport, Fact, ProbeReport, Selection
from workbench.types.run import Run, check_parts
from workbench.types.torch_settings import own_torch_settings

SESSION_FILE, OWNER_FILE, RUNS, MAPS = "session.json", "owner.json", "runs", "maps"
EDIT_PARTS = ("edit", REPORT_FILE, CONTROL_FILE, PROBES_FILE)
"""Of an edit that is no run."""
PARTS = {SESSION_FILE, OWNER_FILE, RUNS, *EDIT_PARTS}
MAPS_FOLDER = re.compile(r"maps(-[0-9a-f]{12})?", re.ASCII)
HALF_WRITTEN = re.compile(r"\..+\.tmp", re.DOTALL)
"""Names of what a kernel that died was writing."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session holds what a researcher has so far: the runs, and what is on screen.

    Args:
        fact: The fact, or the last one where a contrast is on screen.
        fingerprint: Of the base model.
        model_name: Its name.
        selection: What is picked.
        maps: Effect maps by name: of the contrast, where there is one.
        contrast: The pair of prompts on screen; None where it is the fact.
        circuit: The edges that are selected; None where none is.
        edit: The edit, if one was fitted; that of the run ``shown``, where one is.
        report: Its evaluation, if there is one.
        control_report: The evaluation of the same recipe on a random selection, if one was run beside the edit.
        probes: What the probes of the edit found, if they were run.
        runs: All runs, in their order.
        shown: The id of the run whose edit is on screen; None where it is no run, or there is none.
        damaged: What could not be read when the session was loaded, a sentence each. It is not saved.

    Raises:
        ValueError: A map's name that cannot be a file's, a part of another base model, an evaluation or probes of
            another edit, a random control or probes without an edit, two runs of one id, or a shown run that there is
            not or that has another edit.

    Example:
        >>> session = wb.Session(
        ...     fact=fact,
        ...     fingerprint=model.fingerprint,
        ...     model_name=model.name,
        ...     maps={"heads": heads},
        ...     selection=heads.top(2),
        ... )
        >>> session.selection, list(session.maps), session.edit
        (Selection('L0H4 L1H3'), ['heads'], None)
    """

    fact: Fact
    fingerprint: str
    model_name: str
    selection: Selection = field(default_factory=Selection)
    maps: Mapping[str, EffectMap] = field(default_factory=dict[str, EffectMap])
    contrast: Contrast | None = None
    circuit: Circuit | None = None
    edit: Edit | None = None
    report: EvalReport | None = None
    control_report: EvalReport | None = None
    probes: ProbeReport | None = None
    runs: tuple[Run, ...] = ()
    shown: str | None = None
    damaged: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "runs", tuple(self.runs))
        ids = [run.id for run in self.runs]
        if twice := sorted({one for one in ids if ids.count(one) > 1}):
            raise ValueError(f"Two runs of the session are called {twice}. Give each an id of its own.")
        if self.shown is not None:
            self._take_over(self.run(self.shown))
        check_parts(self.fingerprint, maps=self.maps, **self._edit_parts())
        if self.circuit is not None and self.circuit.base_fingerprint not in (None, self.fingerprint):
            raise ValueError(f"The session is of the model {self.fingerprint[:16]}, but its circuit is of another.")
        alone = {"the random control": self.control_report, "the probes": self.probes}
        if self.edit is None and (words := [what for what, part in alone.items() if part is not None]):
            raise ValueError(
                f"The session has no edit, but {' and '.join(words)} of one. Add the edit, or leave it out."
            )
        if other := [run.id for run in self.runs if run.edit.base_fingerprint != self.fingerprint]:
            raise ValueError(f"The session is of the model {self.fingerprint[:16]}, but the runs {other} are not.")

    def _edit_parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("edit", "report", "control_report", "probes")}

    def _take_over(self, run: Run) -> None:
        """The edit on screen and its results are the run's."""
        for name, given in self._edit_parts().items():
            if given is not None and given is not getattr(run, name):
                raise ValueError(f"The session shows the run {run.id!r}, but its {name} is another. Leave it out.")
            object.__setattr__(self, name, getattr(run, name))

    def run(self, id: str) -> Run:
        """The run of this id.

        Raises:
            KeyError: There is none.

        Example:
            >>> run = wb.Run(id="001-france", name="First try", edit=edit)
            >>> session = wb.Session(fact=fact, fingerprint=model.fingerprint, model_name=model.name, runs=(run,))
            >>> session.run("001-france").name
            'First try'
        """
        by_id = {run.id: run for run in self.runs}
        if id not in by_id:
            raise KeyError(f"There is no run {id!r}; there are {list(by_id)}.")
        return by_id[id]

    def at(self, id: str) -> Session:
        """The session with this run on screen: its fact, maps, selection, edit and results.

        Raises:
            KeyError: There is no such run.

        Example:
            >>> run = wb.Run(id="001-france", name="First try", edit=edit, report=report)
            >>> session = wb.Session(fact=fact, fingerprint=model.fingerprint, model_name=model.name, runs=(run,))
            >>> session.edit, session.at("001-france").report is report
            (None, True)
        """
        run = self.run(id)
        none = dict.fromkeys(self._edit_parts())
        of_run: dict[str, Any] = {"fact": run.fact, "maps": run.maps, "selection": run.selection}
        return replace(self, **of_run, contrast=None, circuit=None, shown=id, **none)

    def save(self, path: str | Path) -> Path:
        """Write the session to a folder; a session that is there already is replaced once the new one is complete.

        Returns:
            The folder.

        Raises:
            FileExistsError: There is a file of that name, or a folder with something else in it.
            OSError: The folder cannot be written; what was there is as it was.

        Example:
            >>> session = wb.Session(fact=fact, fingerprint=model.fingerprint, model_name=model.name, edit=edit)
            >>> folder = session.save("session")
            >>> sorted(path.name for path in folder.iterdir())
            ['edit', 'maps', 'runs', 'session.json']
        """
        return write_session(self, path, is_session)


def write_session(session: Session, path: str | Path, may_replace: Callable[[Path], bool]) -> Path:
    """Write a whole session; see ``workbench.files.atomic.new_folder`` for ``may_replace`` and what it raises."""
    with new_folder(path, may_replace, ours={*PARTS, MAPS}) as folder:
        write_maps(session.maps, folder / MAPS)
        (folder / RUNS).mkdir()
        for run in session.runs:
            (folder / RUNS / run.id).mkdir()
            fill_run_folder(run, folder / RUNS / run.id)
        if session.shown is None:
            _write_edit(session, folder)
        write_index(session, folder, MAPS)
    return user_path(path)


def write_maps(maps: Mapping[str, EffectMap], folder: Path) -> None:
    """Write maps into a folder that is not there yet."""
    folder.mkdir()
    for name, effect in maps.items():
        save_effect_map(effect, folder / f"{name}.safetensors")


def _write_edit(session: Session, folder: Path) -> None:
    """Write an edit that is no run, and its results, into the session's folder."""
    if session.edit is not None:
        save_edit(session.edit, folder / "edit")
    if session.report is not None:
        save_report(session.report, folder / REPORT_FILE)
    if session.control_report is not None:
        save_report(session.control_report, folder / CONTROL_FILE)
    if session.probes is not None:
        save_probes(session.probes, folder / PROBES_FILE)


def write_index(session: Session, folder: Path, maps_folder: str) -> None:
    """Write ``session.json``, which says what of the folder is the session."""
    own = session.shown is None
    fields = {
        "fact": session.fact.to_dict(),
        "fingerprint": session.fingerprint,
        "model_name": session.model_name,
        "selection": [str(c) for c in session.selection],
        "contrast": None if session.contrast is None else contrast_fields(session.contrast),
        "circuit": None if session.circuit is None else session.circuit.to_json(),
        "maps": list(session.maps),
        "maps_folder": maps_folder,
        "edit": own and session.edit is not None,
        "report": own and session.report is not None,
        "control_report": own and session.control_report is not None,
        "probes": own and session.probes is not None,
        "runs": [run.id for run in session.runs],
        "shown": session.shown,
    }
    write_bytes(folder / SESSION_FILE, dump(wrap("workbench-session", fields)))


@own_torch_settings()
def load_session(path: str | Path) -> Session:
    """Read a session written by ``Session.save`` or by the Workbench.

    A run that cannot be read is left out, with a warning and a sentence in ``session.damaged``; all else must be whole.

    Args:
        path: The folder.

    Returns:
        The session; it equals the one that was saved.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is not a session, of another schema version, incomplete or damaged; the message says which.

    Example:
        >>> session = wb.Session(fact=fact, fingerprint=model.fingerprint, model_name=model.name)
        >>> folder = session.save("session")
        >>> wb.load_session(folder) == session
        True
    """
    path = user_path(path)
    if not path.is_dir():
        raise FileNotFoundError(
            f"There is no folder {path.absolute()}. A session is the folder that Session.save wrote."
        )
    file = path / SESSION_FILE
    if not file.is_file():
        raise ValueError(f"{path} is not a saved session: it has no {SESSION_FILE}. {RETRY_HINT}")
    fields = unwrap("workbench-session", parse(file.read_bytes(), file), file)
    try:
        with errors_name(path):
            runs, damaged = _runs(path / RUNS, fields["runs"], fields["fingerprint"])
            maps = path / _maps_folder(fields["maps_folder"])
            session = Session(
                fact=Fact.from_dict(fields["fact"]),
                fingerprint=fields["fingerprint"],
                model_name=fields["model_name"],
                selection=Selection(fields["selection"]),
                contrast=None if fields["contrast"] is None else contrast_from(fields["contrast"]),
                circuit=None if fields["circuit"] is None else Circuit.from_json(fields["circuit"]),
                maps={name: load_effect_map(maps / f"{name}.safetensors") for name in fields["maps"]},
                edit=load_edit(path / "edit") if fields["edit"] else None,
                report=load_report(path / REPORT_FILE) if fields["report"] else None,
                control_report=load_report(path / CONTROL_FILE) if fields["control_report"] else None,
                probes=load_probes(path / PROBES_FILE) if fields["probes"] else None,
                runs=runs,
                shown=fields["shown"] if fields["shown"] in [run.id for run in runs] else None,
                damaged=damaged,
            )
    except FileNotFoundError as error:
        raise ValueError(f"The session {path} is incomplete: {error} {RETRY_HINT}") from error
    for words in damaged:
        warnings.warn(words, stacklevel=2)
    return session


def _maps_folder(name: str) -> str:
    if not MAPS_FOLDER.fullmatch(name):
        raise ValueError(f"its maps cannot be in {name!r}.")
    return name


def _runs(folder: Path, listed: list[str], fingerprint: str) -> tuple[tuple[Run, ...], tuple[str, ...]]:
    """The runs in a folder in their order, and a sentence for each that cannot be read.

    A run that is there and not listed was written when the kernel died before it could be listed.
    """
    there = sorted(name for name in contents(folder) if not name.startswith(".")) if folder.is_dir() else []
    runs: list[Run] = []
    damaged: list[str] = []
    for name in [*listed, *(name for name in there if name not in listed)]:
        try:
            run = load_run(folder / name)
            if run.edit.base_fingerprint != fingerprint:
                raise ValueError(f"The run {folder / name} is of another model.")
        except (ValueError, OSError) as error:
            damaged.append(f"The run {name!r} is left out: {error}")
        else:
            runs.append(run)
    return tuple(runs), tuple(damaged)


def has_session(folder: Path) -> bool:
    """Whether a folder holds a session, and perhaps other things, such as pages that were exported there."""
    return (folder / SESSION_FILE).is_file()


def is_session(folder: Path) -> bool:
    """Whether a folder holds a session of ours (damaged ones too) and nothing else."""
    ours = (MAPS_FOLDER, HALF_WRITTEN)
    other = {name for name in contents(folder) - PARTS if not any(form.fullmatch(name) for form in ours)}
    if other or not (folder / SESSION_FILE).is_file():
        return False
    with (folder / SESSION_FILE).open("rb") as file:
        return b'"workbench-session"' in file.read(200)
