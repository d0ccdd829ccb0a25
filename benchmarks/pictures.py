"""Write pictures for the README and the docs from the figures that notebooks stored when they were executed.

    python -m benchmarks.pictures

Needs Chromium. Writes ``docs/images/*.png``.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import plotly.graph_objects as go

from workbench.plots import write_image

PICTURES = {
    ("01_quickstart", "trace.plot()"): "trace.png",
    ("01_quickstart", "report.plot()"): "rates.png",
    ("04_soft_forgetting", 'probes.plot("lens")'): "lens.png",
    ("05_does_the_circuit_matter", "table.plot()"): "arms.png",
}
"""A file for the figure that a notebook's cell ends in, by the name of the notebook and the cell's last line."""


def main() -> None:
    """Write them.

    Raises:
        LookupError: A notebook has no such cell with a figure any more.
    """
    for (notebook, last), name in PICTURES.items():
        print(
            write_image(stored_figure(Path(f"notebooks/{notebook}.ipynb"), last), Path("docs/images") / name, scale=1.0)
        )


def stored_figure(path: Path, last: str) -> go.Figure:
    """The figure that the cell with this last line shows in a notebook as it is stored."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and cell.source.splitlines()[-1:] == [last]:
            for output in cell.outputs:
                figure = output.get("data", {}).get("application/vnd.plotly.v1+json")
                if figure:
                    return go.Figure(data=figure["data"], layout=figure["layout"])
    raise LookupError(f"{path} has no cell that ends in {last!r} and shows a figure: change PICTURES, or execute it.")


if __name__ == "__main__":
    main()
