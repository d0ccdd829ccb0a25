// A map in words: its labels and numbers, a cell's name and value, and what the whole picture shows.

import { corners } from "./cells.js";

const LONGEST = 48; // characters of a label; the tooltip has all of it

export function cut(text) {
  return text.length <= LONGEST ? text : `${text.slice(0, LONGEST - 1)}…`;
}

// As `short_number` in plots/style.py: three significant digits, no exponent from 0.001 to 100,000.
export function formatNumber(value, share = false) {
  if (!Number.isFinite(value)) return "n/a";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (share && value > 0 && value < 0.001) return "<0.001";
  if (share && value > 0.999 && value < 1) return ">0.999";
  let words;
  if (size < 1e-3 || size >= 1e5) words = size.toExponential(2).replace(/e([+-])(\d)$/, "e$10$2");
  else words = size.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size))));
  if (words.includes(".") && !words.includes("e")) words = words.replace(/\.?0+$/, "");
  return value < 0 ? `−${words}` : words;
}

export function nameOf(model, [r, c]) {
  const given = model.get("descriptions");
  if (given.length) return given[r][c];
  const part = (title, label) => (title ? `${title} ${label}` : label);
  return `${part(model.get("row_title"), model.get("rows")[r])}, ${part(model.get("col_title"), model.get("cols")[c])}`;
}

export function valueOf(model, data, [r, c]) {
  const value = data.values[r * data.nCols + c];
  const unit = model.get("unit");
  return Number.isNaN(value) ? "no value" : formatNumber(value) + (unit ? ` ${unit}` : "");
}

// What the picture shows: the line below the map, and the virtual cell that screen readers read.
export function describe(page, model, data, { shown, box, cursor, waiting }) {
  const disabled = model.get("disabled") || !model.get("selectable");
  const text = statusOf(model.get("kind"), data, { shown, box, waiting, disabled });
  if (page.status.textContent !== text) page.status.textContent = text;
  const [r, c] = cursor || [0, 0];
  const set = (node, name, value) => node.setAttribute(name, String(value));
  set(page.cells, "aria-rowcount", data.nRows);
  set(page.cells, "aria-colcount", data.nCols);
  set(page.cells, "aria-readonly", disabled);
  set(page.cells, "aria-activedescendant", page.cell.id);
  set(page.row, "aria-rowindex", r + 1);
  set(page.cell, "aria-colindex", c + 1);
  set(page.cell, "aria-selected", shown.some(([a, b]) => a === r && b === c));
  const spoken = `${nameOf(model, [r, c])}: ${valueOf(model, data, [r, c])}`;
  if (page.cell.textContent !== spoken) page.cell.textContent = spoken;
}

function statusOf(kind, { values }, { shown, box, waiting, disabled }) {
  const count = shown.length;
  let text = disabled && !count ? "" : `${count} ${kind}${count === 1 ? "" : "s"} selected`;
  if (box) {
    const [r0, r1, c0, c1] = corners(box);
    text += ` · box of ${r1 - r0 + 1} × ${c1 - c0 + 1}` + (box.remove ? " to remove" : "");
  }
  if (waiting) text += ` · ${waiting} waiting for Python`;
  if (values.some(Number.isNaN)) text += " · hatched: no value";
  return text;
}
