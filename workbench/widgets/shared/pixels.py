"""Text and frames in pixels, and pixels as a PNG file, from numpy and zlib alone.

Text is drawn with a 5 x 7 dot font that covers printable ASCII and a few signs; letters with accents lose them, and
any other character becomes a box.
"""

from __future__ import annotations

import struct
import unicodedata
import zlib

import numpy as np

Color = tuple[int, int, int]

INK: Color = (26, 26, 26)
ADVANCE, TALL = 12, 14  # pixels of a character with the gap behind it, and of a line

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


def _glyph(char: str) -> bytes:
    plain = char if char in _GLYPHS else unicodedata.normalize("NFKD", char)[:1]
    return _GLYPHS.get(plain, _BOX)


def text_mask(text: str) -> np.ndarray:
    """Draw a text as a mask of pixels: ``TALL`` high, ``ADVANCE`` wide for each character."""
    columns = np.frombuffer(b"".join(_glyph(char) + b"\0" for char in text), dtype=np.uint8)
    mask = (columns[None, :] >> np.arange(7)[:, None] & 1).astype(bool)
    return np.repeat(np.repeat(mask, _SCALE, axis=0), _SCALE, axis=1)


def draw_text(image: np.ndarray, x: int, y: int, text: str, color: Color = INK) -> None:
    """Write a line of text into an image [height, width, 3] from its upper left corner (x, y); the rest is cut."""
    if text:
        draw_mask(image, x, y, text_mask(text), color)


def draw_mask(image: np.ndarray, x: int, y: int, mask: np.ndarray, color: Color) -> None:
    """Colour the pixels under a mask; what falls outside the picture is left out."""
    x0, y0 = max(x, 0), max(y, 0)
    part = mask[y0 - y :, x0 - x :][: max(0, image.shape[0] - y0), : max(0, image.shape[1] - x0)]
    image[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]][part] = color


def draw_frame(image: np.ndarray, x: int, y: int, width: int, height: int, color: Color) -> None:
    """Draw a rectangle's outline, one pixel wide, into an image [height, width, 3]."""
    image[y, x : x + width] = image[y + height - 1, x : x + width] = color
    image[y : y + height, x] = image[y : y + height, x + width - 1] = color


def png_file(image: np.ndarray) -> bytes:
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
