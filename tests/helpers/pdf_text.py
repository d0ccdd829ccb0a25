"""The text of a PDF that Chrome printed: what its fonts say that each drawn glyph stands for."""

from __future__ import annotations

import re
import zlib

_OBJECT = re.compile(rb"(\d+) 0 obj\s*(.*?)endobj", re.DOTALL)


def pages(pdf: bytes) -> int:
    """How many pages it has."""
    return len(re.findall(rb"/Type /Page\b(?!s)", pdf))


def paper(pdf: bytes) -> tuple[float, float]:
    """Width and height of the first page, in pixels of CSS."""
    found = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert found is not None
    return float(found[1]) / 0.75, float(found[2]) / 0.75


def text_of(pdf: bytes) -> str:
    """All drawn text without spaces, which PDFs need not draw."""
    objects = {int(number): body for number, body in _OBJECT.findall(pdf)}
    fonts: dict[bytes, dict[int, str]] = {}
    for body in objects.values():
        for resources in re.findall(rb"/Font\s*<<(.*?)>>", body, re.DOTALL):
            for name, number in re.findall(rb"/(F\d+) (\d+) 0 R", resources):
                table = re.search(rb"/ToUnicode (\d+) 0 R", objects[int(number)])
                if table is not None:
                    fonts[name] = _letters(_stream(objects[int(table[1])]))
    out: list[str] = []
    for body in objects.values():
        font: dict[int, str] = {}
        for name, glyphs in re.findall(rb"/(F\d+) [\d.]+ Tf|<([0-9A-Fa-f]+)>", _stream(body)):
            if name:
                font = fonts.get(name, {})
            else:
                codes = (int(glyphs[i : i + 4], 16) for i in range(0, len(glyphs), 4))
                out.append("".join(font.get(code, "") for code in codes))
    return re.sub(r"\s", "", "".join(out))


def _stream(body: bytes) -> bytes:
    found = re.search(rb"stream\r?\n(.*?)\r?\nendstream", body, re.DOTALL)
    if found is None:
        return b""
    return zlib.decompressobj().decompress(found[1]) if b"/FlateDecode" in body else found[1]


def _letters(table: bytes) -> dict[int, str]:
    """Glyphs by number: single ones and ranges."""
    out: dict[int, str] = {}
    for part in re.findall(rb"beginbfchar(.*?)endbfchar", table, re.DOTALL):
        for code, letter in re.findall(rb"<(\w+)>\s*<(\w+)>", part):
            out[int(code, 16)] = bytes.fromhex(letter.decode()).decode("utf-16-be")
    for part in re.findall(rb"beginbfrange(.*?)endbfrange", table, re.DOTALL):
        for first, last, letter in re.findall(rb"<(\w+)>\s*<(\w+)>\s*<(\w+)>", part):
            for i in range(int(last, 16) - int(first, 16) + 1):
                out[int(first, 16) + i] = chr(int(letter, 16) + i)
    return out
