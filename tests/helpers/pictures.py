"""Reads the PNG files that the package writes."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from workbench.widgets.shared.snapshot import Snapshot


def data_of(picture: Snapshot) -> bytes:
    """The PNG file of a snapshot."""
    data: object = picture.data
    assert isinstance(data, bytes) and data.startswith(b"\x89PNG")
    return data


def decode(png: bytes) -> np.ndarray:
    """A PNG reader for 8-bit RGB without filters, checking every checksum."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        name, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(name + content)
        chunks[name] = content
        at += 12 + length
    width, height, depth, kind, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, kind) == (8, 2)
    assert b"IEND" in chunks
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), dtype=np.uint8).reshape(height, 1 + width * 3)
    assert (lines[:, 0] == 0).all()
    return lines[:, 1:].reshape(height, width, 3)
