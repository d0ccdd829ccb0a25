"""Reads plotly figures, of which plotly declares no types."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go


def layout_of(figure: go.Figure) -> Any:
    """A figure's layout."""
    return figure.layout


def json_of(figure: go.Figure) -> str:
    """A figure as plotly writes it into pages."""
    text = figure.to_json()
    assert isinstance(text, str)
    return text
