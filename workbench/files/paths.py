"""Paths as people write them."""

from __future__ import annotations

from pathlib import Path


def user_path(path: str | Path) -> Path:
    """A path with a leading ``~`` (or ``~name``) replaced by that user's home folder, as a shell does it.

    Args:
        path: As it was given.

    Raises:
        ValueError: There is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path} names a home folder that there is none of. Write the path in full.") from error


def shown_path(path: Path) -> str:
    """A path from the root as a person writes it here: from the working folder, where it lies in that."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # it lies elsewhere, or there is no working folder any more
        return str(path)


def whole_path(source: str | Path | None) -> str | None:
    """A folder or file by its path from the root, for another process may run elsewhere; what is neither (the id of a
    hub, None) as it is.

    Args:
        source: As it was given.
    """
    if source is None:
        return None
    path = user_path(source)
    return str(path.resolve() if path.exists() else source)
