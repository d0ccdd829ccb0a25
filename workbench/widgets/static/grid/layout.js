// Where everything on a map's canvas is, in pixels.

import { clamp } from "./cells.js";
import { formatNumber } from "./words.js";

export const FONT = 11; // px of the labels
export const BAR = { width: 180, height: 9, zone: 44 }; // the colour bar above the map
export const GROUP_ZONE = 12; // the names of groups, between the two
const WORDS = [38, 84]; // px of a cell with a word in it: with many columns the map scrolls
const SIN60 = Math.sin(Math.PI / 3);

export function font(theme, bold) {
  return `${bold ? "bold " : ""}${FONT}px ${theme.family}`;
}

// Every n-th label so that they do not touch: 1, 2, 5, 10, 20 ...
function niceStep(needed, size) {
  let step = 1;
  while (step * size < needed) step *= String(step)[0] === "2" ? 2.5 : 2;
  return step;
}

export function every(list, step) {
  return list.map((item, i) => [item, i]).filter(([, i]) => i % step === 0);
}

// `width` is that of the page around the map, 0 while it is hidden; `measure(text, bold)` is the width of a text.
export function layOut(data, theme, width, measure) {
  const { nRows, nCols, axis } = data;
  const cellHeight = data.cellHeight || clamp(Math.floor(440 / nRows), 3, 22);
  const rowStep = niceStep(FONT + 2, cellHeight);
  const columns = layOutColumns(data, width, measure, rowStep);
  const { left, right, cellWidth, colStep, rotated, widths } = columns;
  const shown = every(widths, colStep).map(([each]) => each);
  const labelHeight = rotated ? Math.ceil(Math.max(...shown) * SIN60 + FONT) : FONT + 4;
  const top = BAR.zone;
  const mapWidth = cellWidth * nCols;
  const mapHeight = cellHeight * nRows;
  // The numbers below the bar must not touch; where the unit has no room beside it, the tooltips have it.
  const least = Math.max(90, 2 * Math.ceil(measure(`${axis.cut ? "≤" : ""}−${formatNumber(axis.end)}`)) + 24);
  const fits = !width || left + least + measure(data.unit) + 16 <= width;
  const unit = fits ? data.unit : "";
  const unitRoom = unit ? measure(unit) + 12 : 4;
  const barWidth = Math.max(Math.floor(Math.min(BAR.width, mapWidth, (width || 800) - left - unitRoom - 4)), least);
  return {
    rootWidth: width,
    left,
    top,
    cellWidth,
    cellHeight,
    mapWidth,
    mapHeight,
    rowStep,
    colStep,
    rotated,
    labelHeight,
    barWidth,
    unit,
    width: Math.ceil(left + Math.max(mapWidth + right, barWidth + unitRoom)),
    height: Math.ceil(top + mapHeight + 6 + labelHeight + (data.colTitle ? FONT + 8 : 4)),
  };
}

// The margins depend on the labels, the labels on the width of a cell, that on the margins: it settles quickly.
function layOutColumns({ nCols, rowLabels, colLabels, rowTitle, marked, words, cellWidth: wanted }, width, measure, rowStep) {
  const rowWidth = Math.max(...every(rowLabels, rowStep).map(([text]) => measure(text)));
  const widths = colLabels.map((text, c) => measure(text, marked.has(c)));
  const longest = Math.max(...widths);
  const numbers = colLabels.every((text) => /^\D{0,2}\d+$/.test(text));
  let left = Math.ceil(rowWidth + 10 + (rowTitle ? FONT + 8 : 0));
  let right = 14;
  let cellWidth, colStep, rotated;
  for (let round = 0; round < 5; round++) {
    const room = (width || 800) - left - right - 4;
    const fits = words.length ? clamp(room / nCols, ...WORDS) : clamp(room / nCols, 1, nCols === 1 ? 60 : 32);
    cellWidth = wanted || (fits > 4 ? Math.floor(fits) : fits);
    const across = niceStep(longest + 6, cellWidth);
    rotated = across > 1 && !numbers;
    colStep = rotated ? niceStep(FONT + 3, cellWidth) : across;
    for (const [, c] of every(colLabels, colStep)) {
      const middle = (c + 0.5) * cellWidth;
      const reach = rotated ? widths[c] * 0.5 + FONT : widths[c] / 2;
      left = Math.max(left, Math.ceil(reach - middle + 2));
      if (!rotated) right = Math.max(right, Math.ceil(middle + widths[c] / 2 - nCols * cellWidth + 4));
    }
  }
  return { left, right, cellWidth, colStep, rotated, widths };
}
