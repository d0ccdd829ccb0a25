"""What mkdocs calls while it builds the site: see ``mkdocs.yml``.

Markers in a page: ``<!-- generated: files -->`` (or ``cli``, ``families``) is replaced by what is made from the package
or its results, ``<!-- include: CHANGELOG.md -->`` by a file of the checkout. What is not there ends the build.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url
from plotly.offline import get_plotlyjs

from docsite import api, flowchart, links, notebooks
from docsite.cli_help import cli_help
from docsite.family_results import family_results
from docsite.file_table import file_table
from workbench.plots.page import FIGURES_SCRIPT

ROOT = Path(__file__).parents[1]
ASSETS = Path(__file__).parent / "assets"
GENERATED: dict[str, Callable[[], str]] = {"files": file_table, "cli": cli_help, "families": family_results}
"""What a marker stands for."""
_MARKER = re.compile(r"^<!-- (generated|include): (\S+) -->$", re.MULTILINE)
_prepared: dict[str, notebooks.Prepared] = {}
_temporary: list[Path] = []


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give Mermaid's fences to ``flowchart``, and the navigation what is generated."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "mermaid", "class": "mermaid", "format": flowchart.fence}]
    _extend(config.nav, "Tutorials", [f"tutorials/{path.name}" for path in _notebooks()])
    _extend(config.nav, "API", list(api.pages()))
    return config


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the API pages, the notebooks, the scripts and the styles."""
    for uri, text in api.pages().items():
        files.append(File.generated(config, uri, content=text))
    folder = Path(tempfile.mkdtemp(prefix="docsite-"))
    _temporary.append(folder)
    for path in _notebooks():
        uri = f"tutorials/{path.name}"
        _prepared[uri] = notebooks.prepare(path, folder / "tutorials")
        files.append(File(uri, str(folder), config.site_dir, config.use_directory_urls))
    for path in sorted(ASSETS.iterdir()):
        files.append(File.generated(config, f"assets/{path.name}", abs_src_path=str(path)))
    files.append(File.generated(config, notebooks.PLOTLY, content=get_plotlyjs()))
    files.append(File.generated(config, notebooks.FIGURES, content=FIGURES_SCRIPT))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in what markers stand for, and lead links that leave the docs folder to pages of the site."""
    uri = page.file.src_uri
    if page.file.generated_by is not None or uri in _prepared:
        return markdown
    try:
        text = links.rewritten(markdown, f"docs/{uri}".rpartition("/")[0], uri)
        return _MARKER.sub(lambda match: _put_in(match[1], match[2], uri), text)
    except ValueError as error:
        raise PluginError(f"docs/{uri}: {error}") from error


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take out of a notebook's page what would be fetched from elsewhere."""
    uri = page.file.src_uri
    if uri not in _prepared:
        return html

    def link(target: str) -> str:
        place, mark, anchor = target.partition("#")
        if not place or re.match(r"[a-z][a-z0-9+.-]*:", place):
            return target
        there = _page_of(place)
        file = files.get_file_from_path(there) if there else None
        if file is None:
            raise PluginError(f"notebooks/{uri.rpartition('/')[2]}: {target} is no page of the site.")
        return file.url_relative_to(page.file) + mark + anchor

    return notebooks.cleaned(html, _prepared[uri], link, lambda asset: get_relative_url(asset, page.url))


def on_post_build(config: MkDocsConfig) -> None:
    """Put the notebooks themselves beside their pages; forget the copies."""
    for path in _notebooks():
        shutil.copyfile(path, Path(config.site_dir) / "tutorials" / path.name)
    _clear()


def on_build_error(error: Exception) -> None:
    """Forget the copies of the notebooks."""
    _clear()


def _clear() -> None:
    while _temporary:
        shutil.rmtree(_temporary.pop(), ignore_errors=True)
    _prepared.clear()


def _notebooks() -> list[Path]:
    return sorted(notebooks.NOTEBOOKS.glob("*.ipynb"))


def _page_of(place: str) -> str | None:
    """The page that a relative link of a notebook leads to."""
    path = (Path("notebooks") / place).as_posix()
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return links.page_of("/".join(parts))


def _put_in(kind: str, name: str, uri: str) -> str:
    if kind == "generated":
        if name not in GENERATED:
            raise ValueError(f"there is nothing to generate as {name!r}; use one of {list(GENERATED)}.")
        return GENERATED[name]()
    file = ROOT / name
    if not file.is_file():
        raise ValueError(f"there is no {name} to include; name a file of the checkout.")
    home = name.rpartition("/")[0]
    return links.rewritten(file.read_text(encoding="utf-8"), home, uri)


def _extend(nav: Any, title: str, pages: list[str]) -> None:
    """Add pages at the end of a section of the navigation, wherever it is."""
    for item in nav:
        if isinstance(item, dict):
            for name, inside in item.items():
                if name == title and isinstance(inside, list):
                    inside.extend(pages)
                    return
                if isinstance(inside, list) and any(isinstance(one, dict) for one in inside):
                    try:
                        return _extend(inside, title, pages)
                    except PluginError:
                        continue
    raise PluginError(f"mkdocs.yml: the navigation has no section {title!r}.")
