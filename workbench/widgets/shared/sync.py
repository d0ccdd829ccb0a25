"""Messages to the browser that lose no change which another thread makes meanwhile.

JupyterLab hands messages of widgets to a thread beside the one that runs cells, and jobs have threads of their own.
``Widget.hold_sync`` sends what changed and then forgets all that was noted, with what another thread has noted between
the two; the browser then goes on showing an old value.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class WholeMessages:
    """For a widget that several threads change; stands before the widget's class.

    Example:
        >>> from ipywidgets import Text
        >>> from workbench.widgets.shared.sync import WholeMessages
        >>> class Line(WholeMessages, Text):
        ...     pass
        >>> line = Line()
        >>> with line.hold_sync():
        ...     line.value, line.description = "Rome", "City"
        >>> line.value
        'Rome'
    """

    @contextmanager
    def hold_sync(self: Any) -> Iterator[None]:
        """Send what changes in a ``with`` block as one message."""
        if self._holding_sync:
            yield
            return
        self._holding_sync = True
        try:
            yield
        finally:
            self._holding_sync = False
            changed, self._states_to_send = self._states_to_send, set()
            self.send_state(changed)
