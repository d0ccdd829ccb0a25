// The elements of a map: two canvases (picture, marks) under one focusable ARIA grid with a single virtual cell.
// Every text comes from a model or a user and is written with textContent or fillText, never as markup.

export function make(parent, tag, name, attributes = {}) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent.append(node);
  return node;
}

// What is above every map, list and graph: a title, and what is said where something is wrong.
export function makeFrame(el, prefix) {
  const root = make(el, "div", `${prefix}-root`);
  const title = make(root, "div", `${prefix}-title`);
  const badge = make(root, "div", `${prefix}-badge`);
  badge.textContent = "Not connected to a kernel: run the cell again to pick here.";
  const banner = make(root, "div", `${prefix}-banner`, { role: "alert", hidden: "" });
  const problem = make(root, "div", `${prefix}-problem`, { role: "alert", hidden: "" });
  return { root, title, badge, banner, problem };
}

// Title, problem, and the accessible name of what is picked from; `what` it is called without one.
export function showFrame(page, model, picked, what) {
  page.title.textContent = model.get("title");
  page.title.hidden = !model.get("title");
  picked.setAttribute("aria-label", model.get("alt") || model.get("title") || what);
  page.problem.textContent = model.get("problem");
  page.problem.hidden = !model.get("problem");
}

export function buildPage(el, id) {
  const frame = makeFrame(el, "hg");
  const { root } = frame;
  const scroll = make(root, "div", "hg-scroll");
  const stage = make(scroll, "div", "hg-stage");
  const picture = make(stage, "canvas", "hg-picture", { "aria-hidden": "true" });
  const marks = make(stage, "canvas", "hg-marks", { "aria-hidden": "true" });
  const cells = make(stage, "div", "hg-cells", { role: "grid", tabindex: "0", "aria-multiselectable": "true" });
  cells.setAttribute("data-lm-suppress-shortcuts", "true"); // or the keys a and b insert cells into the notebook
  cells.setAttribute("aria-describedby", `${id}-keys`);
  const names = make(stage, "div", "hg-names", { "aria-hidden": "true", hidden: "" });
  const keys = make(root, "div", "hg-hidden", { id: `${id}-keys` });
  const row = make(cells, "div", "hg-hidden", { role: "row" });
  const cell = make(row, "div", "", { role: "gridcell", id: `${id}-cell` });
  const status = make(root, "div", "hg-status", { role: "status" });
  const tip = make(root, "div", "hg-tip", { "aria-hidden": "true", hidden: "" });
  if (tip.showPopover) tip.setAttribute("popover", "manual"); // above everything, not cut by the output area
  return { ...frame, stage, picture, marks, cells, names, keys, row, cell, status, tip };
}

const KEYS =
  "Arrows move. Space selects, or takes back. Shift and arrows draw a box, which Space adds and Delete removes. Escape " +
  "drops it. Control A selects all, Control Z takes back, Control Y repeats.";

export function showTexts(page, model) {
  page.keys.textContent = model.get("pinnable") ? `${KEYS} P pins.` : KEYS;
  showFrame(page, model, page.cells, "Heat map");
}

export function resize(page, { left, top, width, height, mapWidth, mapHeight }) {
  Object.assign(page.names.style, { top: `${top}px`, width: `${left}px`, height: `${mapHeight}px` });
  const ratio = window.devicePixelRatio || 1;
  for (const canvas of [page.picture, page.marks]) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
  }
  Object.assign(page.stage.style, { width: `${width}px`, height: `${height}px` });
  Object.assign(page.cells.style, { left: `${left}px`, top: `${top}px`, width: `${mapWidth}px`, height: `${mapHeight}px` });
}
