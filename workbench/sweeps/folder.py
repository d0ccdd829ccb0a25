"""A sweep's folder: what it is of, its items' files, and what failed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.files.atomic import contents, write_bytes
from workbench.files.checked_json import dump, errors_name, parse_file, unwrap, wrap
from workbench.files.folder_lock import LOCK_FILE
from workbench.files.item_file import item_fields
from workbench.files.paths import user_path
from workbench.sweeps.descriptions import alike
from workbench.sweeps.model_source import SHIPPED
from workbench.sweeps.worker import Item, Outcome, Stamp
from workbench.types import slug

SWEEP_FILE, ITEMS, FAILED = "sweep.json", "items", "failed"
OWN = frozenset({SWEEP_FILE, ITEMS, FAILED, LOCK_FILE, SHIPPED})


@dataclass(frozen=True)
class Failure:
    """What an item of a sweep failed with.

    Args:
        id: The item's.
        error: The error's class.
        message: What it said.
        traceback: Where it arose, in the worker.
        deaths: How many processes ended while they had it in hand.
    """

    id: str
    error: str
    message: str
    traceback: str
    deaths: int = 0

    def __str__(self) -> str:
        return f"{self.id}: {self.error}: {self.message}"


DECIDE = ("fingerprint", "dtype", "template", "applied")
"""What of a model decides its results; its name does not."""
RECORDED_LATELY = ("tokenizer",)
"""What decides them too, and some files of sweeps do not record: it is compared where both do."""
UNREADABLE = "unreadable"
"""Stands for the class of an error whose file is damaged."""


class OtherSweep(ValueError):
    """A folder holds the results of another sweep; nothing in it was changed."""


class SweepFolder:
    """A sweep's folder. Whoever writes to it holds its lock.

    Args:
        path: As it was given.

    Attributes:
        path: From the root, so that it stays the same folder when the working folder changes.

    Raises:
        TypeError: It is no path.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, (str, Path)):
            raise TypeError(f"The folder of a sweep is a path, such as 'results/heads'; got {path!r:.60}.")
        self.path = user_path(path).absolute()

    def begin(self) -> None:
        """Make the folder, or take one that is there.

        Raises:
            FileExistsError: It is a file, lies below one, or holds something else.
            OtherSweep: It holds items without the file that says what they are of.
            OSError: It cannot be made.
        """
        there = next((part for part in (self.path, *self.path.parents) if part.exists() or part.is_symlink()), None)
        if there is not None and not there.is_dir():
            what = "a file" if there.exists() else "a link to what is not there"
            raise FileExistsError(f"{there} is {what}, and a sweep needs a folder: choose another name.")
        if self.path.is_dir() and not (self.path / SWEEP_FILE).exists():
            there = sorted(n for n in contents(self.path) - OWN if not (n.startswith(".") and n.endswith(".tmp")))
            if there:
                raise FileExistsError(
                    f"The folder {self.path} holds something else than a sweep ({', '.join(there[:3])}): choose "
                    "another."
                )
            if orphans := len([*(self.path / ITEMS).glob("*.zip")]):
                raise OtherSweep(
                    f"The folder {self.path} holds the results of {orphans} items without the {SWEEP_FILE} that says "
                    f"what they are of. Put {SWEEP_FILE} back from a copy, or choose another folder."
                )
        for part in (ITEMS, FAILED):
            (self.path / part).mkdir(parents=True, exist_ok=True)

    def settings(self) -> dict[str, Any] | None:
        """What ``sweep.json`` says; None where there is none yet.

        Raises:
            ValueError: It is damaged, or of a newer version.
        """
        file = self.path / SWEEP_FILE
        return unwrap("workbench-sweep", parse_file(file), file) if file.exists() else None

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write ``sweep.json``, whole or not at all."""
        write_bytes(self.path / SWEEP_FILE, dump(wrap("workbench-sweep", settings)))

    def item_path(self, id: str) -> Path:
        """The file of an item."""
        return self.path / ITEMS / f"{file_name(id)}.zip"

    def failure_path(self, id: str) -> Path:
        """The file of what an item failed with."""
        return self.path / FAILED / f"{file_name(id)}.json"

    def finished(self, items: Iterable[Item], settings: Mapping[str, Any] | None) -> set[str]:
        """Ids of the items that have a whole file. What is damaged counts as not finished: it is computed again.

        Args:
            items: What is asked for.
            settings: What ``sweep.json`` says; None where there is none yet.

        Raises:
            OtherSweep: An item of that id was another one, or its file is of another sweep.
        """
        done: set[str] = set()
        if settings is None:
            return done
        stamp = Stamp.of(settings)
        for item in items:
            path = self.item_path(item.id)
            if not path.exists():
                continue
            try:
                fields = item_fields(path, whole=True)
            except ValueError:
                continue
            check_item(fields, stamp, path)
            if fields["digest"] != item.digest:
                raise OtherSweep(
                    f"The item {item.id!r} of the sweep in {self.path} was another one when it was computed (it had "
                    "other texts or settings). Give it another id, or choose another folder."
                )
            done.add(item.id)
        return done

    def keep(self, outcome: Outcome) -> None:
        """Write what became of an item.

        Raises:
            OSError: It cannot be written; what was there is as it was.
        """
        if outcome.content is not None:
            write_bytes(self.item_path(outcome.id), outcome.content)
            self.failure_path(outcome.id).unlink(missing_ok=True)
            return
        fields = {name: getattr(outcome, name) for name in ("id", "error", "message", "traceback")}
        if outcome.deaths:
            fields["deaths"] = outcome.deaths
        write_bytes(self.failure_path(outcome.id), dump(wrap("workbench-sweep-failure", fields)))

    def failures(self, ids: Iterable[str]) -> dict[str, Failure]:
        """What failed of some items, by id. Where a file is damaged, it is not known of what."""
        there = {path.name for path in (self.path / FAILED).glob("*.json")}
        of = {id: self.failure_path(id) for id in ids} if there else {}
        return {id: _failure(id, path) for id, path in of.items() if path.name in there}


def _failure(id: str, path: Path) -> Failure:
    try:
        fields = unwrap("workbench-sweep-failure", parse_file(path), path)
        with errors_name(path):
            return Failure(**fields)
    except (OSError, ValueError) as error:
        return Failure(id, UNREADABLE, f"what it failed with cannot be read: {error}", "")


def check_item(fields: Mapping[str, Any], stamp: Stamp, path: Path) -> None:
    """Raise where an item's file is of another sweep than the one in whose folder it lies.

    Args:
        fields: Of the item's file. Where they do not record the call, the model is looked at alone.
        stamp: Of the sweep.
        path: The file.

    Raises:
        OtherSweep: It is of another function, of other options or of another model.
    """
    same = fields["call"] == stamp.call if "call" in fields else fields.get("fingerprint") == stamp.fingerprint
    if not same:
        raise OtherSweep(
            f"{path} is of another sweep than {SWEEP_FILE} beside it says: another function, other options or another "
            "model. Remove it, or put it back into the folder that it is of."
        )


def file_name(id: str) -> str:
    """A file name for an item of any id, other for any other id, where a disk does not tell small letters from large
    ones too."""
    digest = hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{slug(id)[:60].encode('ascii', 'ignore').decode() or 'item'}-{digest}"


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], path: Path, *, other_code: bool) -> None:
    """Raise where a folder's sweep is not the one that is asked for.

    Raises:
        OtherSweep: Another function, option or model, or another version of the code (unless ``other_code``).
    """
    if old["function"] != new["function"]:
        raise OtherSweep(
            f"The sweep in {path} has another function: {_pair(old['function'], new['function'])}. {_ELSEWHERE}"
        )
    if not alike(old["state"], new["state"]):
        raise OtherSweep(
            f"The sweep in {path} is of {new['function']} as it was before: its source has changed since, or what it "
            f"uses from around it. {_ELSEWHERE}"
        )
    if not alike(old["options"], new["options"]):
        names = sorted({*old["options"], *new["options"]})
        differ = [n for n in names if not alike(old["options"].get(n, "unset"), new["options"].get(n, "unset"))]
        words = "; ".join(f"{n} {_pair(old['options'].get(n), new['options'].get(n))}" for n in differ)
        raise OtherSweep(f"The sweep in {path} has other options: {words}. {_ELSEWHERE}")
    decide = (*DECIDE, *(n for n in RECORDED_LATELY if n in old["model"] and n in new["model"]))
    if differ := [n for n in decide if not alike(old["model"].get(n), new["model"].get(n))]:
        words = "; ".join(f"{n} {_pair(old['model'].get(n), new['model'].get(n))}" for n in differ)
        raise OtherSweep(f"The sweep in {path} is of another model: {words}. {_ELSEWHERE}")
    if old["code"] != new["code"] and not other_code:
        differ = [n for n in new["code"] if old["code"].get(n) != new["code"][n]]
        words = "; ".join(f"{n} {_pair(old['code'].get(n), new['code'][n])}" for n in differ)
        raise OtherSweep(
            f"The sweep in {path} was computed by other code: {words}. Choose another folder, or pass other_code=True "
            "to mix: every item says which code made it."
        )


_ELSEWHERE = "Choose another folder for these settings; nothing in this one was changed."


def _pair(old: Any, new: Any) -> str:
    return f"{old!s:.60} there, {new!s:.60} now"
