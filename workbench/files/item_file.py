"""One file an item of a sweep: a ZIP archive of ``item.json`` and the files of the result, each with its checksum.

It appears whole or not at all. Parts are stored as they are, so that any program can take them out: a map in it is the
file that ``EffectMap.save`` writes.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from workbench.files.checked_json import RETRY_HINT, dump, errors_name, parse, sha256, unwrap, wrap
from workbench.files.result_values import Files, from_values, to_values

ITEM_FILE = "item.json"
DAMAGED = (zipfile.BadZipFile, EOFError, NotImplementedError, KeyError, RuntimeError, OSError, zlib.error)
"""What reading a damaged archive raises, by where it is damaged."""
_TIME = (1980, 1, 1, 0, 0, 0)
"""Of all parts, so that equal results are equal files."""


def item_bytes(result: Any, fields: Mapping[str, Any]) -> bytes:
    """An item's file.

    Args:
        result: What the function returned.
        fields: What else ``item.json`` says, as JSON values.

    Raises:
        NotKept: The result cannot be kept (``to_values``).
    """
    files: Files = {}
    values = to_values(result, files)
    parts = {name: sha256(content) for name, content in files.items()}
    header = dump(wrap("workbench-sweep-item", {**fields, "result": values, "parts": parts}))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in {ITEM_FILE: header, **files}.items():
            archive.writestr(zipfile.ZipInfo(name, _TIME), content)
    return stream.getvalue()


def read_item(path: Path) -> tuple[Any, dict[str, Any]]:
    """The result in an item's file, and the other fields.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, of another kind, or of a newer version.
    """
    with _archive(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    header = files.pop(ITEM_FILE, None)
    if header is None:
        raise ValueError(f"{path} is no item of a sweep: it has no {ITEM_FILE}.")
    fields = unwrap("workbench-sweep-item", parse(header, path), path)
    with errors_name(path), tempfile.TemporaryDirectory() as folder:
        if {name: sha256(content) for name, content in files.items()} != fields.pop("parts"):
            raise ValueError("its parts do not have the checksums that it names.")
        for name, content in files.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"its part {name!r} would lie outside of it.")
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return from_values(fields.pop("result"), Path(folder)), fields


def item_fields(path: Path, *, whole: bool = False) -> dict[str, Any]:
    """What ``item.json`` of an item's file says, without its result.

    Args:
        path: The file.
        whole: Read the parts too, to see whether they are damaged.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As ``read_item``; without ``whole`` the parts are not looked at.
    """
    with _archive(path) as archive:
        header = archive.read(ITEM_FILE)
        names = [name for name in archive.namelist() if whole and name != ITEM_FILE]
        parts = {name: sha256(archive.read(name)) for name in names}
    fields = unwrap("workbench-sweep-item", parse(header, path), path)
    if whole and parts != fields["parts"]:
        raise ValueError(f"{path} is damaged: its parts do not have the checksums that it names. {RETRY_HINT}")
    return {k: v for k, v in fields.items() if k not in ("result", "parts")}


@contextmanager
def _archive(path: Path) -> Generator[zipfile.ZipFile]:
    """An item's file, open to read; what goes wrong in it is a ValueError that names it."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (FileNotFoundError, PermissionError):
        raise
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged or cut short ({error}). {RETRY_HINT}") from error
