"""A heat map as PNG bytes, from numpy and zlib alone: what a notebook shows where no widget can run.

Text is drawn with a 5 x 7 dot font that covers printable ASCII and a few signs; letters with accents lose them, and
any other character becomes a box. The picture is always on white, so that it can be read on any page.
"""

from __future__ import annotations

import base64
import struct
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.plots.colours import ColourScale, colour_scale

# Five columns of seven dots for each character from the space on; the lowest bit is the top dot.
_FONT = bytes.fromhex(
    "000000000000005F00000007000700147F147F14242A7F2A12231308646236495620500005030000001C2241000041221C00"
    "2A1C7F1C2A08083E080800503000000808080808006060000020100804023E5149453E00427F400042615149462141454B31"
    "1814127F1027454545393C4A49493001710905033649494936064949291E0036360000005636000000081422411414141414"
    "412214080002015909063E415D594E7C1211127C7F494949363E414141227F4141413E7F494949417F090909013E41415173"
    "7F0808087F00417F41002040413F017F081422417F404040407F021C027F7F0408107F3E4141413E7F090909063E4151215E"
    "7F09192946264949493203017F01033F4040403F1F2040201F3F4038403F631408146303047804036159494D43007F414100"
    "02040810200041417F0004020102044040404040000102040020545454787F484444383844444428384444287F3854545418"
    "00087E09020C5252523E7F0804047800447D40002040403D007F1028440000417F40007C047804787C080404783844444438"
    "7C14141408081414187C7C08040408485454542404043F44243C4040207C1C2040201C3C4030403C44281028440C5050503C"
    "4464544C44000836410000007F000000413608000201020402"
)
_GLYPHS = {chr(32 + i): _FONT[5 * i : 5 * i + 5] for i in range(95)} | {
    "·": bytes.fromhex("0000080000"),
    "…": bytes.fromhex("4000400040"),
    "×": bytes.fromhex("2214081422"),
    "−": bytes.fromhex("0808080808"),
    "–": bytes.fromhex("0808080808"),
}
_BOX = bytes.fromhex("7F4141417F")
_SCALE = 2  # pixels of a dot
_ADVANCE, _TALL = 6 * _SCALE, 7 * _SCALE
_LONGEST = 48  # characters of a label
_INK, _MUTED, _PAPER, _HATCH = (26, 26, 26), (80, 80, 80), (255, 255, 255), (150, 150, 150)


def heat_map_png(
    values: np.ndarray,
    *,
    rows: Sequence[str],
    cols: Sequence[str],
    title: str = "",
    row_title: str = "",
    col_title: str = "",
    unit: str = "",
    limit: float = 1.0,
    groups: Sequence[int] = (),
    marked: Sequence[int] = (),
    selected: Sequence[Sequence[int]] = (),
    scale: ColourScale | None = None,
) -> bytes:
    """Draw a heat map.

    Args:
        values: Rows x columns; NaN is hatched.
        rows, cols: Labels.
        title, row_title, col_title, unit: Texts around the map.
        limit: The colours span ``-limit`` to ``limit``, or 0 to ``limit`` where the scale is sequential.
        groups: Columns before which a thick line is drawn.
        marked: Columns whose label gets a star and a line.
        selected: Cells, outlined.
        scale: The colours. None: RdBu.

    Returns:
        An RGB picture, 8 bits a channel.
    """
    n_rows, n_cols = values.shape
    scale = scale or colour_scale("RdBu")
    wide, high = max(2, min(28, 900 // n_cols)), max(4, min(20, 560 // n_rows))
    names = [f"*{_cut(text)}" if c in set(marked) else _cut(text) for c, text in enumerate(cols)]
    across = max(map(len, names)) * _ADVANCE <= wide  # labels fit side by side
    every = 1 if across else step(_TALL + 4, wide)
    shown = [_cut(text) for text in rows[:: step(_TALL + 2, high)]]
    left = 12 + (_TALL + 8 if row_title else 0) + max(map(len, shown)) * _ADVANCE + 6
    top = 10 + (_TALL + 12 if title else 0)
    map_w, map_h = wide * n_cols, high * n_rows
    label_h = _TALL if across else max(len(text) for text in names[::every]) * _ADVANCE
    bar_y = top + map_h + 10 + label_h + (_TALL + 10 if col_title else 0) + 14
    ends = [_number(part * limit) for part in (scale.low, (1 + scale.low) / 2, 1)]
    ticks = [*ends[:2], ends[2] + (f" {unit}" if unit else "")]
    image_w = 12 + max(left + max(map_w, 240 + len(ticks[2]) * _ADVANCE), 12 + len(title) * _ADVANCE)
    image = np.full((bar_y + 14 + _TALL + 14, image_w, 3), _PAPER, dtype=np.uint8)

    if title:
        draw_text(image, 12, 10, title)
    # The map: colours, hatching, group lines, selection.
    area = image[top : top + map_h, left : left + map_w]
    area[:] = np.repeat(np.repeat(scale.rgb(values / limit), high, axis=0), wide, axis=1)
    y, x = np.mgrid[:map_h, :map_w]
    hatched = np.repeat(np.repeat(np.isnan(values), high, axis=0), wide, axis=1)
    area[hatched] = _PAPER
    area[hatched & ((x + y) % 6 < 2)] = _HATCH
    for c in groups:
        if c:
            image[top - 5 : top + map_h + 5, left + c * wide - 1 : left + c * wide + 2] = _INK
    draw_frame(image, left - 1, top - 1, map_w + 2, map_h + 2, _INK)
    for r, c in selected:
        draw_frame(image, left + c * wide, top + r * high, wide, high, _INK)
        if wide >= 8 and high >= 8:
            draw_frame(image, left + c * wide + 1, top + r * high + 1, wide - 2, high - 2, _PAPER)
            image[top + r * high + 2 : top + r * high + 6, left + (c + 1) * wide - 6 : left + (c + 1) * wide - 2] = _INK
    # Labels.
    for i, text in enumerate(shown):
        r = i * step(_TALL + 2, high)
        draw_text(image, left - 6 - len(text) * _ADVANCE, top + r * high + (high - _TALL) // 2, text, _MUTED)
    for c in range(0, n_cols, every):
        text, middle = names[c], left + c * wide + wide // 2
        if across:
            draw_text(image, middle - len(text) * _ADVANCE // 2, top + map_h + 8, text, _MUTED)
        else:
            dots = np.rot90(_dots(text))
            _stamp(image, middle - _TALL // 2, top + map_h + 8, dots, _INK if c in marked else _MUTED)
    for c in marked:
        image[top + map_h + 2 : top + map_h + 5, left + c * wide : left + (c + 1) * wide] = _INK
    if row_title:
        dots = np.rot90(_dots(row_title))
        _stamp(image, 10, max(0, top + (map_h - dots.shape[0]) // 2), dots, _INK)
    if col_title:
        draw_text(image, left, top + map_h + 14 + label_h, col_title)
    # The colour bar: 200 pixels with its ends and its middle.
    image[bar_y : bar_y + 12, left : left + 200] = scale.rgb(np.linspace(scale.low, 1, 200)[None])
    draw_frame(image, left - 1, bar_y - 1, 202, 14, _INK)
    middles = (left, left + 100 - len(ends[1]) * _ADVANCE // 2, left + 200 - len(ends[2]) * _ADVANCE // 2)
    for text, x0 in zip(ticks, middles, strict=True):
        draw_text(image, x0, bar_y + 18, text, _MUTED)
    return encode(image)


def step(needed: float, size: float) -> int:
    """Label every n-th cell (1, 2, 5, 10 ...), so that labels of ``needed`` pixels fit into cells of ``size``."""
    n = 1
    while n * size < needed:
        n = n * 5 // 2 if str(n)[0] == "2" else n * 2
    return n


def _number(value: float) -> str:
    return f"{value:.3g}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _glyph(char: str) -> bytes:
    plain = char if char in _GLYPHS else unicodedata.normalize("NFKD", char)[:1]
    return _GLYPHS.get(plain, _BOX)


def _dots(text: str) -> np.ndarray:
    """A text as a mask of pixels: 7 dots high, 6 dots for each character."""
    columns = np.frombuffer(b"".join(_glyph(char) + b"\0" for char in text), dtype=np.uint8)
    mask = (columns[None, :] >> np.arange(7)[:, None] & 1).astype(bool)
    return np.repeat(np.repeat(mask, _SCALE, axis=0), _SCALE, axis=1)


def draw_text(image: np.ndarray, x: int, y: int, text: str, color: tuple[int, int, int] = _INK) -> None:
    """Write a line of text into an image [height, width, 3] from its upper left corner (x, y); the rest is cut."""
    if text:
        _stamp(image, x, y, _dots(text), color)


def _stamp(image: np.ndarray, x: int, y: int, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    """Colour the pixels under a mask; what falls outside the picture is left out."""
    x0, y0 = max(x, 0), max(y, 0)
    part = mask[y0 - y :, x0 - x :][: max(0, image.shape[0] - y0), : max(0, image.shape[1] - x0)]
    image[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]][part] = color


def draw_frame(image: np.ndarray, x: int, y: int, width: int, height: int, color: tuple[int, int, int]) -> None:
    """Draw a rectangle's outline, one pixel wide, into an image [height, width, 3]."""
    image[y, x : x + width] = image[y + height - 1, x : x + width] = color
    image[y : y + height, x] = image[y : y + height, x + width - 1] = color


def encode(image: np.ndarray) -> bytes:
    """The PNG file format: a signature and chunks of length, name, content and checksum."""
    height, width, _ = image.shape

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    lines = np.zeros((height, 1 + width * 3), dtype=np.uint8)  # each line starts with its filter: none
    lines[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 6))
        + chunk(b"IEND", b"")
    )


def with_picture(bundle: Mapping[str, Any] | None, text: str, picture: bytes) -> dict[str, Any]:
    """A widget's mime bundle with a fixed text and a PNG picture, for viewers that draw no widgets."""
    return {**(bundle or {}), "text/plain": text, "image/png": base64.b64encode(picture).decode("ascii")}
