"""The results of a sweep: by item, read when they are asked for; as a table, as a mean, and what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.files.item_file import item_fields, read_item
from workbench.files.paths import shown_path
from workbench.sweeps.averages import mean_of
from workbench.sweeps.described import call_of
from workbench.sweeps.descriptions import alike
from workbench.sweeps.folder import SWEEP_FILE, Failure, SweepFolder, check_item
from workbench.sweeps.items import checked_options
from workbench.sweeps.worker import Stamp
from workbench.types import Fact, FactSet

if TYPE_CHECKING:
    import pandas as pd


class SweepResults(Mapping[str, Any]):
    """The results in a sweep's folder. It can be opened while the sweep runs: each look is at what is there then.

    Args:
        path: The folder.

    Attributes:
        path: The folder, from the root.

    Raises:
        TypeError: It is no path.
        FileNotFoundError: There is no sweep.
        ValueError: Its ``sweep.json`` is damaged or of a newer version.

    Example:
        >>> results = wb.sweep(wb.attribute, facts[:2], out="heads", model=model, pool=facts, progress=False)
        >>> list(results), results.pending, results.failed
        (['france-capital', 'italy-capital'], [], {})
        >>> results["france-capital"].top(1), results.mean().values.shape
        (Selection('L0H4'), torch.Size([3, 6]))
        >>> results.to_frame().columns[:3].tolist()
        ['item', 'layer', 'head']
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = SweepFolder(path)
        self.path = self._folder.path
        settings = self._folder.settings()
        if settings is None:
            raise FileNotFoundError(f"There is no sweep in {self.path}: it has no {SWEEP_FILE}.")
        self._settings, self._stamp = settings, Stamp.of(settings)
        self._paths = {one["id"]: self._folder.item_path(one["id"]) for one in settings["items"]}

    def __getitem__(self, id: str) -> Any:
        """An item's result, as the function returned it.

        Raises:
            KeyError: No such item, or one that has not finished; the message says which.
            ValueError: Its file is damaged, or of another sweep.
        """
        path = self._path_of(id)
        try:
            result, fields = read_item(path)
        except FileNotFoundError:
            failure = self._folder.failures([id]).get(id)
            why = f"it failed ({failure.error}: {failure.message})" if failure else "it has not been computed yet"
            raise KeyError(f"The item {id!r} has no result: {why}.") from None
        check_item(fields, self._stamp, path)
        return result

    def _path_of(self, id: str) -> Path:
        if id not in self._paths:
            raise KeyError(f"The sweep in {self.path} has no item {id!r} among its {len(self._paths)}.")
        return self._paths[id]

    def __iter__(self) -> Iterator[str]:
        return (id for id, path in self._paths.items() if path.exists())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and id in self._paths and self._paths[id].exists()

    def __repr__(self) -> str:
        failed = len(self.failed)
        return (
            f"Sweep({shown_path(self.path)!r}, {self.function}, {len(self)} of {len(self._paths)} items"
            f"{f', {failed} failed' if failed else ''})"
        )

    @property
    def function(self) -> str:
        """What was applied, as ``module:name``."""
        return self._settings["function"]

    def made_by(self, function: Callable[..., Any], options: Mapping[str, Any]) -> bool:
        """Whether the folder is of a function with these options, as it is now.

        Args:
            function, options: As ``wb.sweep`` takes them.
        """
        asked = call_of(function, checked_options(function, options))
        return all(alike(self._settings[name], value) for name, value in asked.items())

    @property
    def options(self) -> dict[str, Any]:
        """The function's options, as ``sweep.json`` describes them."""
        return self._settings["options"]

    @property
    def model(self) -> dict[str, Any]:
        """Name, fingerprint, dtype, template and edits of the model, and the checksum of its tokenizer."""
        return self._settings["model"]

    @property
    def code(self) -> dict[str, str]:
        """The code version of the last call: versions by package."""
        return self._settings["code"]

    @property
    def failed(self) -> dict[str, Failure]:
        """What failed, by item: the error's class, its message and where it arose. The next call tries it again."""
        return {id: one for id, one in self._folder.failures(self._paths).items() if id not in self}

    @property
    def pending(self) -> list[str]:
        """Items that have neither finished nor failed."""
        failed = self.failed
        return [id for id, path in self._paths.items() if id not in failed and not path.exists()]

    @property
    def facts(self) -> FactSet:
        """The finished items that are facts, in order: ``results.mean(results.facts.filter(relation=...).ids)``."""
        stored = {one["id"]: one["item"] for one in self._settings["items"]}
        facts = [
            Fact.from_dict(stored[id]["fact"]) for id in self if isinstance(stored[id], dict) and "fact" in stored[id]
        ]
        return FactSet(facts, name=self.path.name)

    def details(self, id: str) -> dict[str, Any]:
        """How an item was computed: seconds, worker, model fingerprint and code version.

        Raises:
            FileNotFoundError: It has not finished.
            KeyError: No such item.
        """
        return item_fields(self._path_of(id))

    def mean(self, ids: Iterable[str] | None = None) -> Any:
        """The mean over items.

        Args:
            ids: Of these; None for all that have finished.

        Returns:
            Of maps one ``EffectMap`` (or ``EdgeMap``): positions are roles, ``stderr`` is over items, ``interval``
            is 95%, and ``per_fact`` holds every item's values in the order of ``provenance["facts"]``. Of reports,
            rates by stage and name; of numbers a ``Rate``; of dictionaries (maps of several sites) a dictionary, each
            entry's mean over the items that have it.

        Raises:
            ValueError: There are none, of several kinds, or maps that differ in what was measured.
            TypeError: Results that have no mean, or ids that are no list.
            KeyError: One of the ids has no result.
        """
        return mean_of({id: self[id] for id in self._chosen(ids)})

    def to_frame(self, ids: Iterable[str] | None = None) -> pd.DataFrame:
        """One table of all results: the rows of each, with the item's id in the column ``item``. A dictionary of tables
        has its keys in ``part``; numbers and text are a row an item. Where a result has a column of one of these names,
        its own becomes ``result_item`` or ``result_part``.

        Args:
            ids: Of these; None for all that have finished.

        Raises:
            TypeError: Ids that are no list.
            KeyError: One of the ids has no result.
        """
        import pandas as pd

        frames = [frame for id in self._chosen(ids) for frame in _frames(id, self[id])]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["item"])

    def _chosen(self, ids: Iterable[str] | None) -> Iterable[str]:
        if isinstance(ids, str):
            raise TypeError(f"ids is a list of ids, got the text {ids!r}: write [{ids!r}].")
        return self if ids is None else ids


def _frames(id: str, result: Any) -> list[pd.DataFrame]:
    """The tables of a result, the item's id in front."""
    import pandas as pd

    if isinstance(result, dict) and result and all(hasattr(v, "to_frame") for v in result.values()):
        parts = [(key, value.to_frame()) for key, value in result.items()]
        return [_with_first(_with_first(frame, "part", key), "item", id) for key, frame in parts]
    if isinstance(result, dict):
        return [_with_first(pd.DataFrame([result]), "item", id)]
    frame = result.to_frame() if hasattr(result, "to_frame") else pd.DataFrame([{"value": result}])
    return [_with_first(frame, "item", id)]


def _with_first(frame: pd.DataFrame, name: str, value: str) -> pd.DataFrame:
    """A table with one column more, in front; its own of that name gets another."""
    own = frame.rename(columns={name: f"result_{name}"})
    return own.assign(**{name: value})[[name, *own.columns]]


def load_sweep(path: str | Path) -> SweepResults:
    """Open the results of a sweep. Each is read from its file when it is asked for.

    Args:
        path: The folder that was ``out``.

    Returns:
        The results by item; ``.failed``, ``.pending``, ``.mean()``, ``.to_frame()``.

    Raises:
        FileNotFoundError: There is no sweep.
        ValueError: It is damaged, or of a newer version.

    Example:
        >>> wb.sweep(wb.ask, {"capital": fact.question}, out="answers", model=model, progress=False)
        Sweep('answers', workbench.evaluation.ask:ask, 1 of 1 items)
        >>> wb.load_sweep("answers")["capital"]
        'Paris'
    """
    return SweepResults(path)
