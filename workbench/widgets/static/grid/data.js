// What a map shows, as Python's traits were at the last full redraw.

import { cut } from "./words.js";

export function readData(model) {
  const [nRows, nCols] = model.get("shape");
  const bytes = model.get("data");
  const start = bytes.byteOffset || 0;
  const marked = new Set(model.get("marked"));
  return {
    nRows,
    nCols,
    values: new Float32Array((bytes.buffer || bytes).slice(start, start + bytes.byteLength)), // copied: aligned to 4
    rowLabels: model.get("rows").map(cut),
    colLabels: model.get("cols").map((text, c) => (marked.has(c) ? `★${cut(text)}` : cut(text))),
    rowTitle: model.get("row_title"),
    colTitle: model.get("col_title"),
    groups: model.get("groups"),
    marked,
    limit: model.get("limit"),
    unit: model.get("unit"),
    cellWidth: model.get("cell_width"), // 0: what fits
    cellHeight: model.get("cell_height"),
  };
}
