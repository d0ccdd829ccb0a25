// What a map shows, as Python's traits were at the last full redraw.

import { axisOf } from "./colours.js";
import { cut, isolate } from "./words.js";

// While a map of another size is being sent, its words may come before or after it.
function fits(words, nRows, nCols) {
  return words.length === nRows && words.every((row) => row.length === nCols) ? words : [];
}

export function readData(model) {
  const [nRows, nCols] = model.get("shape");
  const bytes = model.get("data");
  const start = bytes.byteOffset || 0;
  const marked = new Set(model.get("marked"));
  return {
    nRows,
    nCols,
    values: new Float32Array((bytes.buffer || bytes).slice(start, start + bytes.byteLength)), // copied: aligned to 4
    rowLabels: model.get("rows").map((text) => isolate(cut(text))),
    colLabels: model.get("cols").map((text, c) => (marked.has(c) ? `★${isolate(cut(text))}` : isolate(cut(text)))),
    rowTitle: model.get("row_title"),
    colTitle: model.get("col_title"),
    groups: model.get("groups"),
    groupName: model.get("group_name"),
    marked,
    limit: model.get("limit"),
    axis: axisOf({ mode: model.get("scale_mode"), limit: model.get("limit"), clip: model.get("clip") }, model.get("colours").low),
    unit: model.get("unit"),
    words: fits(model.get("words"), nRows, nCols), // one in each cell; [] without any
    cellWidth: model.get("cell_width"), // 0: what fits
    cellHeight: model.get("cell_height"),
  };
}
