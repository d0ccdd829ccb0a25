"""Results as plotly figures: computes nothing, shows nothing, changes nothing.

Every function takes a result and returns a ``plotly.graph_objects.Figure`` that is readable on dark and light pages (an
opaque white card), has a fixed size in pixels, and carries a description in words under ``figure.layout.meta["alt"]``.
Texts from models and files are escaped, see ``escape``.
"""

from workbench.plots.arms import arms_figure
from workbench.plots.circuits import edges_figure, faithfulness_figure
from workbench.plots.compare import probabilities_figure, rates_figure
from workbench.plots.difference import difference_figure
from workbench.plots.edge_changes import edge_changes_figure
from workbench.plots.effects import effect_figure
from workbench.plots.export import write_bytes, write_image
from workbench.plots.history import history_figure
from workbench.plots.lens import lens_figure
from workbench.plots.lens_grid import lens_grid_figure
from workbench.plots.probes import probe_figure
from workbench.plots.stack import broken_figure, overlaps_figure
from workbench.plots.style import DIVERGING, escape, visible

__all__ = [
    "DIVERGING",
    "arms_figure",
    "broken_figure",
    "difference_figure",
    "edge_changes_figure",
    "edges_figure",
    "effect_figure",
    "escape",
    "faithfulness_figure",
    "history_figure",
    "lens_figure",
    "lens_grid_figure",
    "overlaps_figure",
    "probabilities_figure",
    "probe_figure",
    "rates_figure",
    "visible",
    "write_bytes",
    "write_image",
]
