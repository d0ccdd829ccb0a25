// A map in words: its labels and numbers, a cell's name and value, and what the whole picture shows.

import { corners } from "./cells.js";

const LONGEST = 48; // characters of a label; the tooltip has all of it

export function cut(text) {
  return text.length <= LONGEST ? text : `${text.slice(0, LONGEST - 1)}…`;
}

// As many whole characters of a text as fit, and an ellipsis.
export function cutTo(text, fits) {
  if (fits(text)) return text;
  const marks = typeof Intl === "object" && Intl.Segmenter ? [...new Intl.Segmenter().segment(text)].map((one) => one.segment) : [...text];
  while (marks.length && !fits(`${marks.join("")}…`)) marks.pop();
  return marks.length ? `${marks.join("")}…` : "";
}

// A token with its white space and what has no glyph made visible, as `visible` in plots/style.py.
export function visible(text) {
  if (!text) return "∅";
  const names = { "\n": "⏎", "\r": "␍", "\t": "⇥" };
  const code = (c) => {
    const at = c.codePointAt(0);
    if (at < 256) return `\\x${at.toString(16).padStart(2, "0")}`;
    return at < 65536 ? `\\u${at.toString(16).padStart(4, "0")}` : `\\U${at.toString(16).padStart(8, "0")}`;
  };
  const dots = text.replace(/^ +| +$/g, (spaces) => "·".repeat(spaces.length));
  return dots.replace(/(?! )[\p{C}\p{Z}]/gu, (c) => names[c] || code(c));
}

// A text of any direction as one piece of what is around it; without marks where all of it runs to the right.
export function isolate(text) {
  return /^[\u0000-\u058f]*$/.test(text) ? text : `\u2068${text}\u2069`;
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

// A cell's name as parts, in their order: its labels between the words of `naming`, or the description that was given.
export function namePartsOf(model, [r, c]) {
  const given = model.get("descriptions");
  if (given.length) return [{ text: given[r][c], label: true }];
  const labels = { row: model.get("rows")[r], col: model.get("cols")[c] };
  const titles = { row: model.get("row_title"), col: model.get("col_title") };
  return model.get("naming").split(/(\{row\}|\{col\})/).flatMap((part) => {
    const which = part.slice(1, -1);
    if (!(part.startsWith("{") && which in labels)) return [{ text: part, label: false }];
    // A bare number says nothing without its axis.
    const title = /^\d+$/.test(labels[which]) && titles[which] ? `${titles[which]} ` : "";
    return [{ text: title, label: false }, { text: labels[which], label: true }];
  });
}

export function nameOf(model, cell) {
  return namePartsOf(model, cell).map(({ text, label }) => (label ? isolate(text) : text)).join("");
}

// The group of a column, such as "KV1"; "" without one.
export function groupOf({ groups, groupName }, c) {
  const at = groups.filter((first) => first <= c).length - 1;
  return groupName && at >= 0 ? `${groupName}${at}` : "";
}

export function valueOf(model, data, [r, c]) {
  const value = data.values[r * data.nCols + c];
  const unit = model.get("unit");
  return Number.isNaN(value) ? "no value" : formatNumber(value, unit === "probability") + (unit ? ` ${unit}` : "");
}

// What a click on a cell does, in words: it takes back what is selected. "" where it does nothing.
export function actsOn(model, data, shown, pickable, cell) {
  const [r, c] = cell;
  const selected = shown.some(([a, b]) => a === r && b === c);
  const forIt = model.get("tip_for") && model.get("tip_for")[0] === r && model.get("tip_for")[1] === c;
  const what = forIt ? model.get("tip_picks") : "";
  const words = [];
  if (model.get("row_kind")) {
    if (pickable && !selected) words.push(`A click takes ${data.rowLabels[r]} as the ${model.get("row_kind")}`);
  } else if (pickable && what !== null && (selected || !Number.isNaN(data.values[r * data.nCols + c]))) {
    words.push(`A click ${selected ? "deselects" : "selects"} ${what || "it"}`);
  }
  if (model.get("pinnable")) words.push("a double click or P pins it");
  const text = words.join(", ");
  return text && text[0].toUpperCase() + text.slice(1);
}

// What the picture shows: the line below the map, and the virtual cell that screen readers read.
export function describe(page, model, data, { shown, box, cursor, waiting }) {
  const disabled = model.get("disabled") || !model.get("selectable");
  const text = statusOf(model, data, { shown, box, waiting, disabled });
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
  const group = groupOf(data, c);
  const word = data.words.length ? `${isolate(data.words[r][c])}, ` : "";
  const spoken = `${nameOf(model, [r, c])}${group && ` (${group})`}: ${word}${valueOf(model, data, [r, c])}`;
  if (page.cell.textContent !== spoken) page.cell.textContent = spoken;
}

function statusOf(model, { values, rowLabels }, { shown, box, waiting, disabled }) {
  const count = shown.length, kind = model.get("kind"), rowKind = model.get("row_kind"), rowUnit = model.get("row_unit");
  let text = disabled && !count ? "" : `${count} ${kind}${count === 1 ? "" : "s"} selected`;
  if (rowUnit && text) {
    const rows = new Set(shown.map(([r]) => r)).size;
    text = `${rows} ${rowUnit}${rows === 1 ? "" : "s"} selected${rows ? `, at all ${model.get("shape")[1]} positions` : ""}`;
  }
  if (rowKind) return count ? `${rowKind}: ${rowLabels[shown[0][0]]}` : "";
  if (box) {
    const [r0, r1, c0, c1] = corners(box);
    text += ` · box of ${r1 - r0 + 1} × ${c1 - c0 + 1}` + (box.remove ? " to remove" : "");
  }
  if (waiting) text += ` · ${waiting} waiting for Python`;
  if (values.some(Number.isNaN)) text += " · hatched: no value";
  return text;
}
