"""JupyterLab on the notebooks: which folder, which notebook opens, on which port, and with which settings.

In a checkout that is ``notebooks/`` with its start notebook. Installed without one (from a wheel), it is the current
folder, and the start notebook is written there.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from workbench.files.atomic import write_bytes

START = "00_start.ipynb"
"""The notebook that opens."""
START_TEXT = """# Start

Run the cell (Shift+Enter), then go through the tabs:

- **1 Fact**: choose a fact that the model knows, or write your own, and see the text that is traced.
- **2 Circuit**: click what carries it in maps of heads, MLPs, neurons and layers, and ablate that.
- **3 Edit**: rewrite the fact by exactly these components, or by those of the default selector.
- **4 Compare**: see answers and maps before and after the edit, at any strength.
- **5 Probe**: ask in ten ways what is left of the old answer.
- **6 Stack**: turn the edits so far on and off together, and see which one broke which fact.
- **7 Sweep**: the same maps for many facts, their average, and the facts that make each cell of it.

Every run is saved as soon as it has ended; the line on top lists them. `app.code` is the Python that repeats what is on
screen."""
START_CODE = """import workbench as wb

app = wb.Workbench(wb.load_model())
app"""
NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
"""Of a checkout; an installed package has none."""
SETTINGS = Path(__file__).resolve().parent / "widgets/jupyterlab"
"""Defaults of JupyterLab."""
PORT = 8888
"""JupyterLab's own default."""


def start_lab(options: Sequence[str]) -> None:
    """Become JupyterLab on the start notebook.

    Args:
        options: Passed on to JupyterLab.

    Raises:
        ValueError: The port that is asked for is in use, or not allowed.
        OSError: The start notebook cannot be written.
        FileNotFoundError: The bundled model is not installed.
    """
    from workbench.models.load import load_model

    asked = port_of(options)
    why = trouble(own_port() if asked is None else asked, ip_of(options))
    if why and asked is not None:
        raise ValueError(f"Port {asked} {why}. Leave --port out, and a free one is taken, or choose another one.")
    folder = start_folder()
    load_model()  # converts the bundled model now, with a progress bar, rather than in the first cell
    if why:
        print(f"Port {own_port()} {why}. JupyterLab takes another one: use the address that it prints below.")
    print(f"JupyterLab opens {START} in {folder}.", flush=True)  # what is not flushed is lost with this process
    os.execv(sys.executable, lab_command(folder, options))


def start_folder() -> Path:
    """The folder that JupyterLab shows, with the start notebook in it: the checkout's, else the current one.

    Raises:
        OSError: The start notebook cannot be written there; one that is there stays as it is.
    """
    if (NOTEBOOKS / START).is_file():
        return NOTEBOOKS
    path = Path.cwd() / START
    if not path.exists():
        try:
            write_bytes(path, start_notebook())
        except OSError as error:
            raise OSError(
                f"{START} cannot be written to {path.parent} ({error}). Run `workbench lab` in a folder that can be "
                "written."
            ) from error
        print(f"Wrote {path}. The other notebooks are in the project's repository.")
    return path.parent


def start_notebook() -> bytes:
    """The start notebook without outputs, as a file."""
    import nbformat

    cells = [nbformat.v4.new_markdown_cell(START_TEXT), nbformat.v4.new_code_cell(START_CODE)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    return nbformat.writes(notebook).encode()


def lab_command(folder: Path, options: Sequence[str]) -> list[str]:
    """The command line of JupyterLab.

    Args:
        folder: The folder that it shows, with the start notebook in it.
        options: Given by the user.
    """
    command = [sys.executable, "-m", "jupyterlab", str(folder), *_saved_widgets()]
    if not any(option.startswith(("--LabApp.default_url", "--ServerApp.default_url")) for option in options):
        command.append(f"--LabApp.default_url=/lab/tree/{START}")
    if port_of(options) and not any(option.startswith(_RETRIES) for option in options):
        command.append("--ServerApp.port_retries=0")  # a port that was asked for is that port or an error
    command += options
    if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in options:
        command.append("--allow-root")  # JupyterLab refuses to start as root without it
    return command


def _saved_widgets() -> list[str]:
    """Let widgets be saved with a notebook: opened again, it then shows them (not connected) instead of "model not
    found". An environment with defaults of its own keeps those."""
    from jupyterlab.commands import get_app_dir

    if (Path(get_app_dir()) / "settings").is_dir():
        return []
    return [f"--LabApp.app_settings_dir={SETTINGS}"]


# The port


_RETRIES = ("--ServerApp.port_retries", "--port-retries")


def _value_of(options: Sequence[str], *names: str) -> str | None:
    """What the last option of one of these names is given, ``--name value`` or ``--name=value``."""
    found = None
    for at, option in enumerate(options):
        name, equals, value = option.partition("=")
        if name in names:
            found = value if equals else next(iter(options[at + 1 :]), None)
    return found


def port_of(options: Sequence[str]) -> int | None:
    """The port that JupyterLab's options ask for; None where they ask for none, or for no number: JupyterLab says
    what is wrong with that."""
    value = _value_of(options, "--port", "--ServerApp.port") or ""
    return int(value) if value.isdecimal() else None


def ip_of(options: Sequence[str]) -> str:
    """The address that JupyterLab is to listen on."""
    return _value_of(options, "--ip", "--ServerApp.ip") or "localhost"


def own_port() -> int:
    """The port that JupyterLab begins with where none is asked for."""
    value = os.environ.get("JUPYTER_PORT", "")
    return int(value) if value.isdecimal() else PORT


def trouble(port: int, ip: str) -> str:
    """Why JupyterLab could not listen there, in words that go on from the port; empty where it could."""
    from tornado.netutil import bind_sockets

    if port > 65535:
        return "does not exist: there are 65535"
    try:
        sockets = bind_sockets(port, "" if ip == "*" else ip)  # as JupyterLab does it
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "is in use, perhaps by another JupyterLab (`jupyter lab list` shows them)"
        return f"at {ip} cannot be had ({error})"
    for one in sockets:
        one.close()
    return ""
