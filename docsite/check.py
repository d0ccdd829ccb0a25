"""Whether a built site holds together: ``python -m docsite.check site``.

Every link inside resolves, anchors too; no page, style or script asks another host for anything; every public name of
the package has its place in the API reference. Links that a reader may follow to another host are fine.

What a script would do when it runs cannot be read off it. So each page must also carry the content security policy
that lets a browser refuse every other host, and a browser test looks at the requests.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from docsite import api

FETCHED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}
"""Kinds of ``<link>`` for which a browser asks a host."""
SOURCES = {
    **{tag: ("src",) for tag in ("script", "iframe", "embed", "track", "frame", "audio")},
    **{tag: ("src", "srcset") for tag in ("img", "source", "input")},
    "video": ("src", "poster"),
    "object": ("data",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
    "form": ("action",),
}
"""Attributes that a browser fetches, by element."""
NOT_REACHED = {"assets/plotly.min.js": "https://cdn.jsdelivr.net/npm/@mapbox/"}
"""What a script would load for something that no page has (plotly's maps), and what the policy refuses anyway."""
_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)['\"]?\s*\)|@import\s+['\"]([^'\"]+)['\"]")
_LOADED = re.compile(
    r"(?:\bimport\s*\(?|\bfrom|\bimportScripts\s*\(|\bfetch\s*\(|\bnew\s+(?:Worker|SharedWorker|WebSocket|EventSource)\s*\("
    r"|\.open\s*\(\s*['\"]GET['\"]\s*,|\.src\s*=|sendBeacon\s*\()\s*['\"`]((?:https?:|wss?:)?//[^'\"`\s]+)"
)
_POLICY = re.compile(r"(?:^|;)\s*default-src ((?:'self'|file:|data:|blob:|\s)+)(?:;|$)")


@dataclass
class Read(HTMLParser):
    """What a page says: its anchors, its links, what it fetches and its policy."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    policy: str = ""
    diagrams: int = 0
    _inside: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.update(values[name] for name in ("id", "name") if name in values and (name == "id" or tag == "a"))
        if tag in ("a", "area") and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and FETCHED_LINKS & set(values.get("rel", "").lower().split()):
            self.fetched.append(values.get("href", ""))
        for name in SOURCES.get(tag, ()):
            if name in values:
                sources = values[name].split(",") if name == "srcset" else [values[name]]
                self.fetched += [source.split()[0] for source in sources if source.split()]
        if tag == "meta":
            equivalent = values.get("http-equiv", "").lower()
            if equivalent == "content-security-policy":
                self.policy = values.get("content", "")
            elif equivalent == "refresh":
                self.fetched.append(values.get("content", "").partition("=")[2].strip("'\" "))
        self.fetched += in_style(values.get("style", ""))
        self.diagrams += "mermaid" in values.get("class", "").split()
        is_code = tag == "script" and values.get("type", "text/javascript") in ("text/javascript", "module", "")
        self._inside = tag if tag == "style" or is_code else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.fetched += in_style(data)
        elif self._inside == "script":
            self.loaded += in_script(data)


def in_style(text: str) -> list[str]:
    """What a style sheet fetches."""
    return [first or second for first, second in _URL.findall(text)]


def in_script(text: str) -> list[str]:
    """Addresses of other hosts that a script names where it loads something."""
    return _LOADED.findall(text)


def read(path: Path) -> Read:
    """Read a page."""
    reader = Read()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    return reader


def problems(site: Path, names: Sequence[str] | None = None) -> list[str]:
    """What is wrong with a built site, a line each; none if it holds together.

    Args:
        site: Its folder.
        names: The public names that it must have; by default those of the package.

    Raises:
        FileNotFoundError: There is no site.
    """
    if not (site / "index.html").is_file():
        raise FileNotFoundError(f"{site} has no index.html; build the site first (make docs).")
    pages = {path: read(path) for path in sorted(site.rglob("*.html"))}
    found: list[str] = []
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        found += [f"{name}: {words}" for words in _page(site, path, page, pages)]
    for path in sorted(site.rglob("*.css")):
        name = path.relative_to(site).as_posix()
        for target in in_style(path.read_text(encoding="utf-8")):
            found += [f"{name}: {words}" for words in _fetch(site, path, target)]
    for path in sorted(site.rglob("*.js")):
        name = path.relative_to(site).as_posix()
        loaded = in_script(path.read_text(encoding="utf-8"))
        found += [f"{name}: loads {target}" for target in loaded if not target.startswith(NOT_REACHED.get(name, " "))]
    return found + list(_names(site, pages, api.public_paths() if names is None else names))


def _page(site: Path, path: Path, page: Read, pages: dict[Path, Read]) -> Iterator[str]:
    if not _POLICY.search(page.policy):
        yield "has no content security policy that keeps to its own host"
    if page.diagrams:
        yield "has a diagram that a script from another host would draw"
    yield from (f"loads {target}" for target in page.loaded)
    for target in page.fetched:
        yield from _fetch(site, path, target)
    for target in page.links:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        file = _file(site, path, parts.path)
        if file is None:
            yield f"a link to {target}, which is not there"
        elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].anchors:
            yield f"a link to {target}: the page has no such place"


def _fetch(site: Path, path: Path, target: str) -> Iterator[str]:
    """What is wrong with a file that a page or a style asks for."""
    parts = urlsplit(target)
    if parts.scheme in ("data", "blob") or (not parts.path and not parts.netloc):
        return
    if parts.scheme or parts.netloc:
        yield f"asks another host for {target}"
    elif _file(site, path, parts.path) is None:
        yield f"asks for {target}, which is not there"


def _file(site: Path, path: Path, target: str) -> Path | None:
    """The file that a page's relative (or, for the page of a wrong address, absolute) link leads to."""
    if not target:
        return path
    base = site if target.startswith("/") else path.parent
    file = Path(os.path.normpath(base / unquote(target).lstrip("/")))
    file = file / "index.html" if file.is_dir() else file
    return file if file.is_file() and file.is_relative_to(site) else None


def _names(site: Path, pages: dict[Path, Read], names: Sequence[str]) -> Iterator[str]:
    """Public names without a place in the API reference."""
    places = {anchor for path, page in pages.items() if api.FOLDER in path.as_posix() for anchor in page.anchors}
    listed = {api.canonical(one.path): one.path for page in api.entries().values() for one in page}
    for name in names:
        if listed[api.canonical(name)] not in places:
            yield f"{api.FOLDER}: the public name {name} has no entry"


def main(arguments: Sequence[str]) -> int:
    """Check the site in a folder; returns the exit status."""
    if len(arguments) != 1:
        print("usage: python -m docsite.check FOLDER", file=sys.stderr)
        return 2
    try:
        found = problems(Path(arguments[0]).resolve())
    except FileNotFoundError as error:
        print(f"docsite: {error}", file=sys.stderr)
        return 2
    for words in found:
        print(words, file=sys.stderr)
    print(f"{len(found)} problems." if found else "Every link resolves, and nothing asks another host.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
