"""A session in a folder: the fact, its maps, the selection, the edit, its evaluation and what the probes found.

The folder holds the files that the modules beside this one write (``maps/*.safetensors``, ``edit/``, ``report.json``,
``control_report.json``, ``probes.json``) and ``session.json``, which names them. It appears whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workbench.files.atomic import contents, new_folder, write_bytes
from workbench.files.checked_json import RETRY_HINT, dump, errors_name, parse, unwrap, wrap
from workbench.files.edits import load_edit, save_edit
from workbench.files.effect_maps import load_effect_map, save_effect_map
from workbench.files.probes import load_probes, save_probes
from workbench.files.reports import load_report, save_report
from workbench.types import Edit, EffectMap, EvalReport, Fact, ProbeReport, Selection

SESSION_FILE = "session.json"
REPORT_FILE, CONTROL_FILE, PROBES_FILE = "report.json", "control_report.json", "probes.json"
PARTS = {SESSION_FILE, "maps", "edit", REPORT_FILE, CONTROL_FILE, PROBES_FILE}
_MAP_NAME = re.compile(r"[\w-]{1,60}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session holds what a researcher has so far: the fact, what is picked, the maps, the edit and its results.

    Args:
        fact: The fact.
        fingerprint: Of the base model.
        model_name: Its name.
        selection: What is picked.
        maps: Effect maps by name.
        edit: The edit, if one was fitted.
        report: Its evaluation, if there is one.
        control_report: The evaluation of the same recipe on a random selection, if one was run beside the edit.
        probes: What the probes of the edit found, if they were run.

    Raises:
        ValueError: A map's name that cannot be a file's, a part of another base model, an evaluation or probes of
            another edit, or a random control or probes without an edit.

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
    edit: Edit | None = None
    report: EvalReport | None = None
    control_report: EvalReport | None = None
    probes: ProbeReport | None = None

    def __post_init__(self) -> None:
        if unfit := [name for name in self.maps if not _MAP_NAME.fullmatch(name)]:
            raise ValueError(f"The maps {unfit} cannot be files of that name. Use letters, digits, _ and - only.")
        bases = {f"the map {name!r}": effect.base_fingerprint for name, effect in self.maps.items()}
        if self.edit is not None:
            bases["the edit"] = self.edit.base_fingerprint
        beside = {"the evaluation": self.report, "the random control": self.control_report, "the probes": self.probes}
        bases |= {what: one.base_fingerprint for what, one in beside.items() if one is not None}
        if other := [what for what, base in bases.items() if base is not None and base != self.fingerprint]:
            raise ValueError(
                f"The session is of the model {self.fingerprint[:16]}, but {', '.join(other)} is of another."
            )
        if self.edit is None and (alone := [w for w, one in list(beside.items())[1:] if one is not None]):
            raise ValueError(
                f"The session has no edit, but {' and '.join(alone)} of one. Add the edit, or leave it out."
            )
        found = {"probes are": self.probes, "evaluation is": self.report}
        for what, edit_id in [(what, one.edit_id) for what, one in found.items() if one is not None]:
            if self.edit is not None and edit_id not in (None, self.edit.id):
                raise ValueError(f"The {what} of the edit {edit_id[:16]}, and the session's is {self.edit.id[:16]}.")

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
            ['edit', 'maps', 'session.json']
        """
        fields = {
            "fact": self.fact.to_dict(),
            "fingerprint": self.fingerprint,
            "model_name": self.model_name,
            "selection": [str(c) for c in self.selection],
            "maps": list(self.maps),
            "edit": self.edit is not None,
            "report": self.report is not None,
            "control_report": self.control_report is not None,
            "probes": self.probes is not None,
        }
        with new_folder(path, _is_session) as folder:
            (folder / "maps").mkdir()
            for name, effect in self.maps.items():
                save_effect_map(effect, folder / "maps" / f"{name}.safetensors")
            if self.edit is not None:
                save_edit(self.edit, folder / "edit")
            if self.report is not None:
                save_report(self.report, folder / REPORT_FILE)
            if self.control_report is not None:
                save_report(self.control_report, folder / CONTROL_FILE)
            if self.probes is not None:
                save_probes(self.probes, folder / PROBES_FILE)
            write_bytes(folder / SESSION_FILE, dump(wrap("workbench-session", fields)))
        return Path(path)


def load_session(path: str | Path) -> Session:
    """Read a session written by ``Session.save``.

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
    path = Path(path)
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
            return Session(
                fact=Fact.from_dict(fields["fact"]),
                fingerprint=fields["fingerprint"],
                model_name=fields["model_name"],
                selection=Selection(fields["selection"]),
                maps={name: load_effect_map(path / "maps" / f"{name}.safetensors") for name in fields["maps"]},
                edit=load_edit(path / "edit") if fields["edit"] else None,
                report=load_report(path / REPORT_FILE) if fields["report"] else None,
                control_report=load_report(path / CONTROL_FILE) if fields.get("control_report") else None,
                probes=load_probes(path / PROBES_FILE) if fields.get("probes") else None,  # older sessions lack both
            )
    except FileNotFoundError as error:
        raise ValueError(f"The session {path} is incomplete: {error} {RETRY_HINT}") from error


def _is_session(folder: Path) -> bool:
    """Whether a folder holds a session of ours (damaged ones too) and nothing else."""
    if contents(folder) - PARTS or not (folder / SESSION_FILE).is_file():
        return False
    with (folder / SESSION_FILE).open("rb") as file:
        return b'"workbench-session"' in file.read(200)
