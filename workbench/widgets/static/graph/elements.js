// The elements of a graph. Every text comes from a model or a user and is written with textContent, never as markup.

import { make, makeFrame, showFrame } from "../grid/page.js";

const SVG = "http://www.w3.org/2000/svg";
const HALF_W = 24; // of a node, as in plots/graph_layout.py
const HALF_H = 9;
const THIN = 0.8; // of a line, as in plots/graph_svg.py
const THICK = 6;

export function makeSvg(parent, tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent.append(node);
  return node;
}

function legend(line, sign, words) {
  const key = make(line, "span", "gv-key");
  const svg = makeSvg(key, "svg", { width: 34, height: 8, "aria-hidden": "true" });
  makeSvg(svg, "path", { d: "M1 4H33", class: `gv-edge ${sign}`, "stroke-width": 3 });
  make(key, "span", "").textContent = words;
}

const GRAPH_KEYS =
  "Arrows move between nodes, and along and between edges. E goes to the strongest edge of a node. Enter or Space " +
  "selects, or takes back. Shift and Enter asks for the path from the node entered last. Control Z takes back.";

export function buildGraph(el, id) {
  const frame = makeFrame(el, "gv");
  const { root } = frame;
  const line = make(root, "div", "gv-line");
  const slider = make(line, "label", "gv-slider");
  make(slider, "span", "").textContent = "Edges drawn";
  const range = make(slider, "input", "", { type: "range", min: 1, step: 1 });
  range.dataset.lmSuppressShortcuts = "true";
  const number = make(slider, "output", "");
  legend(line, "gv-above", "the metric rises where this edge alone is corrupted");
  legend(line, "gv-under", "it falls: the answer rests on this edge");
  const box = make(root, "div", "gv-box", { role: "listbox", tabindex: "0", "aria-multiselectable": "true", id });
  box.setAttribute("data-lm-suppress-shortcuts", "true"); // or the keys a and b insert cells into the notebook
  box.setAttribute("aria-describedby", `${id}-keys`);
  const svg = makeSvg(box, "svg", { role: "presentation" });
  const keys = make(root, "div", "gv-hidden", { id: `${id}-keys` });
  keys.textContent = GRAPH_KEYS;
  const status = make(root, "div", "gv-status", { role: "status" });
  const tip = make(root, "div", "gv-tip", { "aria-hidden": "true", hidden: "" });
  if (tip.showPopover) tip.setAttribute("popover", "manual"); // above everything, not cut by the output area
  return { ...frame, slider, range, number, box, svg, status, tip, id, parts: new Map() };
}

export function showWords(page, model) {
  showFrame(page, model, page.box, "Circuit");
  page.slider.hidden = model.get("most") < 2;
  page.range.max = model.get("most");
  page.range.value = model.get("count");
  page.number.textContent = model.get("count");
}

// Edges below nodes; of the edges the widest below, so that thin ones can be clicked.
export function buildParts(page, model, words) {
  const [nodes, xs, ys, rows, rowYs] = ["nodes", "xs", "ys", "rows", "row_ys"].map((name) => model.get(name));
  const [edges, scores, curves, notes] = ["edges", "scores", "curves", "notes"].map((name) => model.get(name));
  const [limit, unit, [width, height]] = ["limit", "unit", "size"].map((name) => model.get(name));
  const drawing = document.createElementNS(SVG, "svg");
  const option = { role: "option", "aria-selected": "false" };
  page.parts.clear();
  rows.forEach((text, i) => {
    makeSvg(drawing, "text", { x: 6, y: rowYs[i] + 4, class: "gv-row", "aria-hidden": "true" }).textContent = text;
  });
  const lines = makeSvg(drawing, "g", { role: "group", "aria-label": "Edges" });
  edges.forEach((name, i) => {
    const c = curves[i];
    const d = `M${c[0]} ${c[1]}C${c[2]} ${c[3]} ${c[4]} ${c[5]} ${c[6]} ${c[7]}`;
    const wide = THIN + (THICK - THIN) * Math.min(1, Math.abs(scores[i]) / limit);
    const part = makeSvg(lines, "g", { ...option, class: "gv-part", id: `${page.id}-e${i}`, "data-name": name });
    makeSvg(part, "path", { d, class: "gv-hit", "stroke-width": wide + 7 });
    makeSvg(part, "path", { d, class: `gv-edge ${scores[i] < 0 ? "gv-under" : "gv-above"}`, "stroke-width": wide });
    part.setAttribute("aria-label", [`${name}, ${words(scores[i])} ${unit}`.trim(), notes[i]].filter(Boolean).join(", "));
    page.parts.set(name, part);
  });
  const boxes = makeSvg(drawing, "g", { role: "group", "aria-label": "Nodes" });
  nodes.forEach((name, i) => {
    const part = makeSvg(boxes, "g", { ...option, class: "gv-part gv-node", id: `${page.id}-n${i}`, "data-name": name, "aria-label": name });
    makeSvg(part, "rect", { x: xs[i] - HALF_W, y: ys[i] - HALF_H, width: 2 * HALF_W, height: 2 * HALF_H, rx: 4 });
    makeSvg(part, "text", { x: xs[i], y: ys[i] + 4 }).textContent = name === "embedding" ? "embed" : name;
    page.parts.set(name, part);
  });
  for (const [key, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) page.svg.setAttribute(key, value);
  page.svg.replaceChildren(...drawing.childNodes);
}
