"""Figures as files: PNG, SVG, PDF, or one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import plotly.graph_objects as go

from workbench.files.atomic import write_bytes
from workbench.files.paths import user_path

MOST_SECONDS = 60.0
"""How long a browser may take for a picture."""
_BROWSER = (
    "Chrome or Chromium is needed to write {kind} files and was not found or did not start ({error}). Install one (for "
    'example "apt install chromium" or "plotly_get_chrome"), or write an .html file instead.'
)
CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "responsive": True,
    "showTips": False,
    "toImageButtonOptions": {"format": "png", "scale": 2},
}


def write_image(figure: go.Figure, path: str | Path, *, scale: float = 2.0) -> Path:
    """Write a figure to a file, in the format of its suffix, without network access.

    Args:
        figure: The figure; its own width and height are kept.
        path: Ends in ``.png``, ``.svg``, ``.pdf`` or ``.html``. HTML is self-contained and interactive; SVG and PDF
            have real text.
        scale: Pixels of a PNG per pixel of the figure.

    Returns:
        The path. An existing file is replaced only once the new one is complete.

    Raises:
        ValueError: Another suffix.
        RuntimeError: kaleido or a browser is missing, or the browser hangs (PNG, SVG and PDF).
        OSError: The folder cannot be written.
    """
    path = user_path(path)
    kind = path.suffix.lower()
    if kind == ".html":
        page = figure.to_html(
            include_plotlyjs=True, include_mathjax=False, full_html=True, div_id="figure", config=CONFIG
        )
        return write_bytes(path, page.encode())
    if kind not in (".png", ".svg", ".pdf"):
        raise ValueError(f"A figure is written as .png, .svg, .pdf or .html, got {path.name!r}.")
    return write_bytes(path, _render(figure, kind[1:], scale))


def _render(figure: go.Figure, kind: str, scale: float) -> bytes:
    try:
        import kaleido
        from kaleido.errors import BrowserClosedError, BrowserFailedError, ChromeNotFoundError
    except ImportError as error:
        raise RuntimeError(
            f'Writing {kind} files needs kaleido: run "pip install kaleido", or write an .html file instead.'
        ) from error
    content: dict[str, Any] = figure.to_dict()
    size = {"width": content["layout"].get("width", 900), "height": content["layout"].get("height", 600)}
    options: dict[str, Any] = {"opts": {"format": kind, "scale": scale, **size}, "kopts": {"mathjax": False}}
    try:  # plotly's own write_image would fetch MathJax from a content server
        return _within(MOST_SECONDS, kind, lambda: kaleido.calc_fig_sync(content, **options))
    except (ChromeNotFoundError, BrowserFailedError, BrowserClosedError, OSError) as error:
        raise RuntimeError(no_browser(kind, type(error).__name__)) from error


def no_browser(kind: str, error: str) -> str:
    """What to do where no browser draws."""
    return _BROWSER.format(kind=kind, error=error)


def _within(seconds: float, kind: str, render: Callable[[], bytes]) -> bytes:
    """What a function gives, or a RuntimeError when it takes too long: a browser that hangs would block a notebook for
    good. It is left to itself then, in a thread that ends with the process."""
    done: list[bytes] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(render())
        except BaseException as error:
            failed.append(error)

    thread = Thread(target=run, name="workbench-picture", daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise RuntimeError(
            f"The browser that draws {kind} files has not answered for {seconds:.0f} s. Write an .html file instead, "
            "which needs none, or end its processes (chrome, chromium) and try again."
        )
    return done[0]
