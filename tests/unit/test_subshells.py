"""Messages for a widget go to a thread that is there, by ipykernel's own classes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from workbench.widgets.shared.subshells import reach_widgets

comms = pytest.importorskip("ipykernel.comm.comm")
pytestmark = pytest.mark.skipif(
    not hasattr(comms.BaseComm, "_reply_subshell_for"), reason="this ipykernel sends messages where they were asked for"
)


def comm(*alive: str) -> Any:
    """A comm of a kernel with these threads."""
    made = comms.BaseComm.__new__(comms.BaseComm)
    made._reply_subshell_lock, made._reply_subshell_ids = comms.Lock(), {}
    manager = SimpleNamespace(list_subshell=lambda: list(alive))
    made.kernel = SimpleNamespace(shell_channel_thread=SimpleNamespace(manager=manager))
    return made


def test_what_comes_for_a_thread_that_is_gone_goes_where_it_was_asked_for() -> None:
    reach_widgets()
    one = comm("a", "b")
    assert one._reply_subshell_for({}, "b") == "b", "never changed from Python"
    one._reply_subshell_id = "a"
    assert one._reply_subshell_for({}, "b") == "a", "it is there: as ipykernel has it"
    one._reply_subshell_id = "gone"
    assert one._reply_subshell_for({}, "b") == "b" and one._reply_subshell_for({}, None) is None
    one._reply_subshell_id = None
    assert one._reply_subshell_for({}, "b") is None, "the thread of the cells is always there"
    one._reply_subshell_ids["q"] = "gone"
    assert one._reply_subshell_for({"content": {"id": "q"}}, "b") == "b"


def test_it_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comms.BaseComm, "_reply_subshell_for", comms.BaseComm._reply_subshell_for)
    reach_widgets()
    route = comms.BaseComm._reply_subshell_for
    reach_widgets()
    assert comms.BaseComm._reply_subshell_for is route
