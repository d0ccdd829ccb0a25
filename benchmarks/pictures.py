"""Write the README's pictures from the figures that notebook 01 stored when it was executed.

python -m benchmarks.pictures
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import plotly.graph_objects as go

from workbench.plots import write_image

PICTURES = {"trace.plot()": "trace.png", "report.plot()": "rates.png"}


def main() -> None:
    """Write ``docs/images/*.png``."""
    notebook = nbformat.read("notebooks/01_quickstart.ipynb", as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            figure = output.get("data", {}).get("application/vnd.plotly.v1+json")
            name = PICTURES.get(cell.source.splitlines()[-1])
            if figure and name:
                drawn = go.Figure(data=figure["data"], layout=figure["layout"])
                print(write_image(drawn, Path("docs/images") / name, scale=1.0))


if __name__ == "__main__":
    main()
