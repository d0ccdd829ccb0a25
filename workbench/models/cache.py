"""The one memory of a model: what was computed with it, for as long as its weights stay as they are.

Every ``LoadedModel`` has one, ``model.cache``: typed tables that share a lock, a budget in bytes and a rule, by which
the entry that was used longest ago goes first. A key holds what decides a value besides the weights.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar
from weakref import ref

from torch import Tensor

from workbench.models.lru import LruEntries, byte_size
from workbench.types.covariance import Covariance
from workbench.types.support import SupportCheck
from workbench.types.tuned_lens import TunedLens

BUDGET = 256 * 2**20
"""Bytes that a model's cache may hold."""

Ids = tuple[int, ...]
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Owner(Protocol):
    """What a cache asks of its model."""

    @property
    def version(self) -> Hashable:
        """Changes with the weights."""
        ...


class EnginePool:
    """Idle engines of one network. All models that run this network share it: those that a ``Dial`` makes, one for each
    strength, or else a single one.

    Attributes:
        lock: Guards the pool and the tables of every cache that has it.
        idle: The engines.
        writes: How often the network's adapters were written in place, which torch does not count.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.idle = LruEntries()
        self.writes = 0

    def __len__(self) -> int:
        return len(self.idle)


class _Store:
    """What the tables of a cache share."""

    def __init__(self, owner: Owner, engines: EnginePool) -> None:
        # Weak, so that a model goes with its last name, at once and without the garbage collector.
        self._owner = ref(owner)
        self.engines, self.lock = engines, engines.lock
        self.entries = LruEntries()
        self.budget = BUDGET
        self.generation = 0
        self._version: Hashable = None

    def refresh(self) -> int:
        """Drop what was computed with other weights. Returns the generation: a value whose computing began in an
        earlier one is not stored."""
        owner = self._owner()
        version = (owner.version, self.engines.writes) if owner is not None else None
        with self.lock:
            if version != self._version:
                self._version = version
                self.forget()
            return self.generation

    def forget(self) -> None:
        """Drop all entries, and what is being computed now when it is there."""
        with self.lock:
            self.entries.clear()
            self.generation += 1

    def trim(self) -> None:
        """Drop what was used longest ago until the rest is within the budget."""
        with self.lock:
            parts = (self.entries, self.engines.idle)
            while sum(part.nbytes for part in parts) > self.budget:
                (_, key), part = min(((part.oldest(), part) for part in parts), key=lambda pair: pair[0][0])
                part.pop(key)


class Table(Generic[K, V]):
    """Values of one kind by key. No lock is held while a value is computed: two threads that ask for the same one at
    the same time compute it both, and get the one that was stored first."""

    def __init__(self, store: _Store, name: str) -> None:
        self._store, self._name = store, name

    def get(self, key: K) -> V | None:
        """The value of a key, or None where it is not known."""
        return self.get_all([key]).get(key)

    def get_all(self, keys: Iterable[K]) -> dict[K, V]:
        """The known ones of some keys, each with its value."""
        self._store.refresh()
        return self._known(keys)

    def get_or_compute(self, key: K, compute: Callable[[], V]) -> V:
        """The value of a key, computed where it is not known."""
        return self.get_or_compute_all([key], lambda _: [compute()])[0]

    def get_or_compute_all(self, keys: Iterable[K], compute: Callable[[list[K]], Sequence[V]]) -> list[V]:
        """The values of some keys, in order.

        Args:
            keys: The keys; one may stand there several times.
            compute: Gives the values of those that are not known, each once, in order. Not called when all are.
        """
        keys, generation = list(keys), self._store.refresh()
        values = self._known(keys)
        missing = [key for key in dict.fromkeys(keys) if key not in values]
        if missing:
            for key, value in zip(missing, compute(missing), strict=True):
                values[key] = self._stored(key, value, generation)
            self._store.trim()
        return [values[key] for key in keys]

    def _known(self, keys: Iterable[K]) -> dict[K, V]:
        with self._store.lock:
            entries = {key: self._store.entries.get((self._name, key)) for key in dict.fromkeys(keys)}
        return {key: entry.value for key, entry in entries.items() if entry is not None}

    def _stored(self, key: K, value: V, generation: int) -> V:
        """Store a value unless the cache was emptied since its computing began, or it is larger than the budget.
        Returns what another thread has stored meanwhile, if one has."""
        size = byte_size((key, value))
        store, place = self._store, (self._name, key)
        with store.lock:
            if store.generation != generation:
                return value
            entry = store.entries.get(place)
            if entry is not None:
                return entry.value
            if size <= store.budget:
                store.entries.put(place, value, size)
        return value

    def __len__(self) -> int:
        with self._store.lock:
            return sum(name == self._name for name, _ in self._store.entries)

    def __repr__(self) -> str:
        return f"{len(self)} {self._name}"


class ModelCache:
    """What was computed with a model. It is emptied when a weight is replaced or changed in place (a change through a
    tensor's ``.data`` is not noticed), or when the model attends by another implementation.

    Args:
        owner: The model. It is not kept alive.
        engines: The idle engines of the network that it runs, where other models run it too.

    Attributes:
        answer_keys: What decides an answer, as a short hash, by settings, form and text of the prompt.
        answers: Greedy answers as text and token ids, by prompt, largest number of new tokens, and what ends it.
        nll: The mean negative log-likelihood of an answer, nats per token, by prompt and answer.
        ends: The probability that a word ends after an answer, by prompt and answer.
        states: Residual streams that enter a layer, by texts and layer.
        fisher: Fisher information of the gates of a site, [layers, gates], by rows, seed, lowest layer and site.
        hidden: What the logits of each row are made of, by rows, seed and lowest layer.
        deviations: Standard deviations of states that enter layer 0, by text and positions.
        checks: What the self-check found, by the check's name.
        covariances: Of what output projections read (``wb.covariance``), by the texts' hash and the place.
        lenses: Tuned lenses, by their texts and options (``wb.tuned_lens``).
        means: Mean states of a site, [layers, width], by the texts that they are means over.
        engines: Engines that nobody uses now.

    Example:
        >>> model.cache.clear()
        >>> len(model.cache), model.cache.nbytes
        (0, 0)
    """

    def __init__(self, owner: Owner, engines: EnginePool | None = None) -> None:
        self.engines = EnginePool() if engines is None else engines
        self._store = _Store(owner, self.engines)
        self.answers: Table[tuple[Ids, int, tuple[int | str, ...]], tuple[str, Ids]] = Table(self._store, "answers")
        self.answer_keys: Table[tuple[Any, Any, str], str] = Table(self._store, "answer keys")
        self.nll: Table[tuple[Ids, Ids], float] = Table(self._store, "nll")
        self.ends: Table[tuple[Ids, Ids], float] = Table(self._store, "ends")
        self.states: Table[tuple[tuple[Ids, ...], int], Tensor] = Table(self._store, "states")
        self.fisher: Table[Hashable, Tensor] = Table(self._store, "fisher")
        self.hidden: Table[Hashable, Mapping[Any, Tensor]] = Table(self._store, "hidden")
        self.deviations: Table[Hashable, float] = Table(self._store, "deviations")
        self.checks: Table[str, SupportCheck] = Table(self._store, "checks")
        self.covariances: Table[Hashable, Covariance] = Table(self._store, "covariances")
        self.lenses: Table[Hashable, TunedLens] = Table(self._store, "lenses")
        self.means: Table[tuple[str, tuple[Ids, ...]], Tensor] = Table(self._store, "means")

    @property
    def tables(self) -> tuple[Table[Any, Any], ...]:
        """All tables."""
        return tuple(part for part in vars(self).values() if isinstance(part, Table))

    @property
    def budget(self) -> int:
        """Bytes that may be held; what was used longest ago goes when a smaller number is set."""
        return self._store.budget

    @budget.setter
    def budget(self, nbytes: int) -> None:
        if nbytes < 0:
            raise ValueError(f"budget must be at least 0 bytes, got {nbytes!r}.")
        self._store.budget = nbytes
        self._store.trim()

    @property
    def nbytes(self) -> int:
        """Bytes that are held: tensors, Python objects, and what engines do not share with the model."""
        with self._store.lock:
            return self._store.entries.nbytes + self.engines.idle.nbytes

    def take_engine(self, kind: Hashable, network: Hashable) -> Any:
        """Take an idle engine out of the pool, for one caller alone; None where there is none.

        Args:
            kind: What kind of engine.
            network: What its view shares with the network. Engines that share something else are dropped: they would
                keep tensors alive that the network no longer has.
        """
        idle = self.engines.idle
        with self._store.lock:
            for key in idle:
                if key[1] != network:
                    idle.pop(key)
            free = [key for key in idle if key[0] == kind]
            return idle.pop(free[-1]) if free else None

    def put_engine(self, kind: Hashable, network: Hashable, engine: Any, nbytes: int) -> None:
        """Hand an engine back to the pool. Arguments as for ``take_engine``, and the bytes that are its own."""
        with self._store.lock:
            self.engines.idle.put((kind, network, id(engine)), engine, nbytes)
            self._store.trim()

    def clear(self) -> None:
        """Forget everything. What is being computed now is not stored when it is there."""
        with self._store.lock:
            self._store.forget()
            self.engines.idle.clear()

    def __len__(self) -> int:
        """How many entries and engines are held."""
        return sum(map(len, self.tables)) + len(self.engines)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        parts = [*map(repr, filter(len, self.tables)), *([f"{len(self.engines)} engines"] if len(self.engines) else [])]
        held = f"{self.nbytes / 2**20:.1f} of {self.budget / 2**20:.0f} MiB"
        return f"ModelCache({', '.join(parts) or 'empty'}; {held})"
