// The elements of a bar list. Every text comes from a model or a user and is written with textContent, never as markup.

import { make, makeFrame, showFrame } from "../grid/page.js";

export function buildList(el, id) {
  const frame = makeFrame(el, "bl");
  const { root } = frame;
  const list = make(root, "div", "bl-list", { role: "listbox", tabindex: "0", "aria-multiselectable": "true", id });
  list.setAttribute("data-lm-suppress-shortcuts", "true"); // or the keys a and b insert cells into the notebook
  const status = make(root, "div", "bl-status", { role: "status" });
  return { ...frame, list, status, id };
}

export function showHeadings(page, model) {
  showFrame(page, model, page.list, "List");
}

// A row for each name: check mark, name, bar, value, and a pin where somebody listens to pins.
export function buildRows(page, model, words) {
  const [names, values, notes] = ["names", "values", "notes"].map((name) => model.get(name));
  const [limit, unit, height] = ["limit", "unit", "list_height"].map((name) => model.get(name));
  const rows = document.createDocumentFragment();
  names.forEach((name, i) => {
    const row = make(rows, "div", "bl-row", { role: "option", id: `${page.id}-${i}`, "data-at": i });
    make(row, "span", "bl-check", { "aria-hidden": "true" });
    make(row, "bdi", "bl-name").textContent = name;
    const track = make(row, "span", "bl-track", { "aria-hidden": "true" });
    const bar = make(track, "span", values[i] < 0 ? "bl-bar bl-below" : "bl-bar");
    bar.style.width = `${100 * Math.min(1, Math.abs(values[i]) / limit)}%`;
    make(row, "span", "bl-value").textContent = words(values[i]);
    if (model.get("pinnable")) {
      make(row, "span", "bl-pin", { "aria-hidden": "true", title: `Show ${name} at the side (P, or a double click)` });
    }
    if (notes[i]) row.title = notes[i];
    row.setAttribute("aria-label", [name, `${words(values[i])}${unit && ` ${unit}`}`, notes[i]].filter(Boolean).join(", "));
  });
  const { scrollTop } = page.list;
  const longest = Math.max(0, ...names.map((name) => name.length));
  page.list.style.setProperty("--bl-name", `${Math.min(24, Math.max(6, longest))}`);
  page.list.replaceChildren(rows);
  page.list.style.maxHeight = height ? `${height}px` : "";
  page.list.scrollTop = scrollTop;
}
