"""RecoveryView: how much of the metric what is selected carries by itself, beside random parts of its size."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ipywidgets import HTML, Checkbox, VBox

from workbench.models.load import LoadedModel
from workbench.types import Circuit, Faithfulness, Selection
from workbench.types.cancelling import CancelFlag, Cancelled, check_cancel
from workbench.widgets.shared import markup
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.voice import person

DRAWS = 3
"""Random parts, of which the mean is shown."""


@dataclass(frozen=True)
class Recovered:
    """What was measured.

    Args:
        part: Of what is selected.
        random: Of random parts of the same size.
    """

    part: Faithfulness
    random: tuple[Faithfulness, ...]

    @property
    def words(self) -> str:
        """The finding in a sentence, with the ablation and the control named."""
        control = _two_digits(sum(one.recovery.value for one in self.random) / len(self.random))
        n = len(set(self.part.items))
        edges = isinstance(self.part.part, Circuit)
        size = len(self.part.part)
        value = _two_digits(self.part.recovery.value)
        kept = f"{size} selected {'edge' if edges else 'component'}{'s' * (size != 1)}"
        return (
            f"Recovery of the {kept}: {value} of the metric ({self.part.metric}) is there "
            f"with everything else ablated ({self.part.ablation}); of {len(self.random)} random parts of the same size "
            f"{control} on average. Measured on the {n} item{'s' * (n > 1)} that the edges are scored on, so that "
            "it is no test of a choice that was made by these scores."
        )


def _two_digits(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # no minus before a zero


class RecoveryView(VBox):
    """A box to tick, and a line that follows what is selected while it is ticked. Of several selections that come while
    one is measured the last one is next.

    Args:
        model: For random parts.
        measure: Gives the faithfulness of a part.
        part: Gives what is selected: the edges, or the components where no edge is.
    """

    def __init__(
        self,
        model: LoadedModel,
        measure: Callable[[Circuit | Selection], Faithfulness],
        part: Callable[[], Circuit | Selection],
    ) -> None:
        self._model, self._measure, self._part = model, measure, part
        self._lock = threading.RLock()
        self._waiting = False
        self.job: Job[Recovered] | None = None
        self.result: Recovered | None = None
        self.error: BaseException | None = None
        self.live = Checkbox(
            description="Recovery of what is selected, beside random",
            tooltip="Measure after each click, in the background",
            value=False,
            indent=False,
            layout={"width": "auto"},
        )
        self._line = HTML()
        super().__init__([self.live, self._line])
        self.live.observe(lambda _: self.follow(), names="value")

    def __repr__(self) -> str:
        return f"RecoveryView({'live' if self.live.value else 'off'})"

    @property
    def words(self) -> str:
        """What the line says, as markup."""
        return self._line.value

    def follow(self) -> None:
        """What is selected may have changed: measure it, if the box is ticked."""
        with self._lock:
            part = self._part()
            running = self.job is not None and self.job.running
            if self.job is not None and running:
                self.job.cancel()
            self._waiting = False
            self.result = self.error = None
            if not self.live.value or not len(part):
                self._line.value = markup.hint("Select nodes or edges.") if self.live.value else ""
            elif running:
                self._waiting = True
            else:
                self._line.value = markup.block('<span role="status">Measuring recovery ...</span>')
                self.job = Job(lambda cancel: self._work(part, cancel), on_done=self._ended)

    def _work(self, part: Circuit | Selection, cancel: CancelFlag) -> Recovered:
        found = [self._measure(part)]
        for seed in range(DRAWS):
            check_cancel(cancel, "between two measurements")
            found.append(self._measure(part.random_like(self._model, seed=seed)))
        return Recovered(found[0], tuple(found[1:]))

    def _ended(self, job: Job[Recovered]) -> None:
        with self._lock:
            if job is not self.job:
                return
            if self._waiting:
                return self.follow()
            if job.cancelling or isinstance(job.error, Cancelled):
                return
            self.result, self.error = job.result, job.error
            if job.error is not None:
                self._line.value = markup.alert(person(job.error))
            elif job.result is not None:
                self._line.value = markup.block(f'<span role="status">{markup.text(job.result.words)}</span>')
