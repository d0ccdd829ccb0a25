"""A page as a PDF file, printed by the Chrome or Chromium of the machine; nothing is fetched."""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from workbench.plots.export import MOST_SECONDS, no_browser

_WORDS = "Circuit Workbench"
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # as kaleido starts it: containers have none; the page is the workbench's own and runs no script
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--no-pdf-header-footer",
)


def find_browser() -> str:
    """The browser that draws pictures: what ``BROWSER_PATH`` names, else Chrome or Chromium where it is installed.

    Raises:
        RuntimeError: There is none; the message says how to get one.
    """
    try:
        from choreographer.browsers.chromium import Chromium
    except ImportError as error:
        raise RuntimeError(
            'Writing pdf files needs kaleido: run "pip install kaleido", or write an .html file instead.'
        ) from error
    path = Chromium.find_browser(skip_local=False)
    if not path:
        raise RuntimeError(no_browser("pdf", "none found"))
    return str(path)


def pdf_of(page: str) -> bytes:
    """Print an HTML page.

    Args:
        page: It loads nothing; the size of its paper is that of its ``@page`` rule.

    Returns:
        The PDF.

    Raises:
        RuntimeError: There is no browser, it does not start, or it takes longer than ``MOST_SECONDS``.
    """
    browser = find_browser()
    with TemporaryDirectory(prefix="workbench-", ignore_cleanup_errors=True) as folder:
        source, out = Path(folder, "page.html"), Path(folder, "page.pdf")
        source.write_text(page, encoding="utf-8", errors="replace")
        command = [browser, *_OPTIONS, f"--user-data-dir={folder}/profile", f"--print-to-pdf={out}", source.as_uri()]
        try:
            subprocess.run(command, capture_output=True, timeout=MOST_SECONDS, check=True)
            return out.read_bytes()
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(
                f"The browser that draws pdf files has not answered for {MOST_SECONDS:.0f} s. Write an .html file "
                "instead, which needs none."
            ) from error
        except (OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError(no_browser("pdf", type(error).__name__)) from error


def pdf_of_svg(svg: str, width: float, height: float) -> bytes:
    """An SVG document as a PDF of one page of its size, with real text.

    Args:
        svg: The document.
        width, height: In pixels.
    """
    paper = f"@page {{ size: {width + 1:.0f}px {height + 1:.0f}px; margin: 0; }}"  # paper is cut to whole points
    style = f"{paper} html, body {{ margin: 0; }} svg {{ display: block; }}"
    closed = "default-src 'none'; style-src 'unsafe-inline'"
    policy = f'<meta http-equiv="Content-Security-Policy" content="{closed}">'
    head = f'<head><meta charset="utf-8">{policy}<title>{_WORDS}</title><style>{style}</style></head>'
    return pdf_of(f'<!DOCTYPE html><html lang="en">{head}<body>{svg}</body></html>')
