"""Reads the panels' HTML and says whether it can do harm."""

from __future__ import annotations

from html.parser import HTMLParser

TAGS = {
    "div", "p", "b", "span", "table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "ol", "li", "details",
    "summary", "pre", "code", "bdi", "progress", "figure", "svg", "g", "title", "text", "rect", "line", "path",
    "circle",
}  # fmt: skip


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said = ""
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data

    def named(self, name: str) -> list[str | None]:
        return [value for key, value in self.attributes if key == name]


def harmless(source: str) -> Reader:
    """Only known elements, no handlers and no addresses: nothing in it can run or fetch."""
    read = Reader(source)
    assert set(read.tags) <= TAGS, set(read.tags) - TAGS
    assert not [name for name, _ in read.attributes if name.startswith("on") or name in ("src", "href")]
    return read
