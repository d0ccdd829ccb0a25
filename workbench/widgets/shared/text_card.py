"""A title card as a PNG picture: what a panel without a map shows where widgets cannot be drawn, such as on GitHub."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from workbench.widgets.shared.pixels import draw_frame, draw_text, png_file

_WIDTH, _MARGIN, _LINE, _CHARACTERS = 900, 20, 24, 70


def text_card_png(title: str, lines: Sequence[str]) -> bytes:
    """A white card with a title and some lines below it.

    Args:
        title: Raw text.
        lines: Raw texts; long ones are wrapped.
    """
    wrapped = [part for line in lines for part in textwrap.wrap(line, _CHARACTERS) or [""]][:20]
    image = np.full((2 * _MARGIN + _LINE * (len(wrapped) + 1) + 8, _WIDTH, 3), 255, dtype=np.uint8)
    draw_frame(image, 0, 0, _WIDTH, image.shape[0], (120, 120, 120))
    draw_text(image, _MARGIN, _MARGIN, title[:_CHARACTERS], (0, 90, 160))
    for i, line in enumerate(wrapped, 1):
        draw_text(image, _MARGIN, _MARGIN + 8 + i * _LINE, line)
    return png_file(image)
