// GraphView: a circuit's nodes and edges, of which several can be selected. Python owns what is selected: see picks.js.

import { PickView } from "../grid/view.js";
import { formatNumber } from "../grid/words.js";
import { setGround, watchTheme } from "../theme.js";
import { buildGraph, buildParts, showWords } from "./elements.js";
import { handleGraphKey } from "./moves.js";

const PARTS = ["nodes", "xs", "ys", "edges", "starts", "ends", "curves", "scores", "notes", "rows", "row_ys", "size", "limit", "unit"];
const SLIDE_EVERY = 60; // ms between two messages to Python
const HOVER_AFTER = 50; // ms that the pointer stays before Python is told
let graphs = 0;

class GraphPage extends PickView {
  constructor(model, el) {
    super(model, buildGraph(el, `gv-${Date.now().toString(36)}-${graphs++}`));
    Object.assign(this, { anchor: null, hovered: null });
    const redraw = () => this.redraw(false);
    const on = (name, handler) => this.page.box.addEventListener(name, handler);
    on("click", (event) => this.clicked(event));
    on("mousedown", (event) => event.detail > 1 && event.preventDefault()); // no text selection by a double click
    on("pointermove", (event) => this.hover(this.nameAt(event), event));
    on("pointerleave", () => this.hover(null));
    on("keydown", (event) => handleGraphKey(event, this));
    on("focus", redraw);
    on("blur", redraw);
    this.page.range.addEventListener("input", () => this.slide());
    this.listenTo(PARTS, () => this.redraw(true));
    this.listenTo(["cursor", "selectable", "disabled", "path_ends", "total"], redraw);
    this.listenTo(["tip", "tip_for"], () => this.fillTip());
    this.listenTo(["title", "alt", "problem", "count", "most"], () => showWords(this.page, model));
    this.stopWatching = watchTheme(() => setGround(this.page.root));
    setGround(this.page.root);
    showWords(this.page, model);
    this.draw();
    this.picks.connectionChanged();
  }

  destroy() {
    clearTimeout(this.pointed);
    super.destroy();
  }

  isNode(name) {
    return this.model.get("nodes").includes(name);
  }

  // Python may have set a name that the graph has no more.
  cursor() {
    const cursor = this.model.get("cursor");
    return this.isNode(cursor) || this.model.get("edges").includes(cursor) ? cursor : null;
  }

  nameAt(event) {
    const part = event.target.closest && event.target.closest(".gv-part");
    return part ? part.dataset.name : null;
  }

  clicked(event) {
    const name = this.nameAt(event);
    if (name === null) return;
    this.setCursor(name, false);
    if (event.shiftKey) this.path(name);
    else this.choose(name);
  }

  choose(name) {
    if (name === null) return;
    if (this.isNode(name)) this.anchor = name;
    this.toggle(name);
    this.redraw(false);
  }

  // An edge is selected with its ends. It takes those with it that no other selected edge has, and a node its edges.
  toggle(name) {
    if (!this.picks.pickable()) return;
    const [nodes, edges, starts, ends] = ["nodes", "edges", "starts", "ends"].map((each) => this.model.get(each));
    const shown = new Set(this.picks.shown());
    const endsOf = (edge) => [nodes[starts[edges.indexOf(edge)]], nodes[ends[edges.indexOf(edge)]]];
    const selectedEdges = () => edges.filter((edge) => shown.has(edge));
    if (!shown.has(name)) {
      shown.add(name);
      if (!this.isNode(name)) endsOf(name).forEach((end) => shown.add(end));
    } else if (shown.delete(name) && this.isNode(name)) {
      selectedEdges().filter((edge) => endsOf(edge).includes(name)).forEach((edge) => shown.delete(edge));
    } else {
      const held = new Set(selectedEdges().flatMap(endsOf));
      endsOf(name).filter((end) => !held.has(end)).forEach((end) => shown.delete(end));
    }
    this.picks.ask([...nodes, ...edges].filter((each) => shown.has(each)));
  }

  path(name) {
    if (name === null || !this.isNode(name)) return;
    if (this.anchor && this.anchor !== name && this.isNode(this.anchor)) this.picks.tell({ event: "path", item: [this.anchor, name] });
    else this.anchor = name;
    this.redraw(false);
  }

  takeBack(again) {
    this.picks.tell({ event: again ? "redo" : "undo" });
  }

  slide() {
    this.page.number.textContent = this.page.range.value;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.picks.tell({ event: "count", item: Number(this.page.range.value) }), SLIDE_EVERY);
  }

  // Within the box only: the page around it stays where it is.
  reveal(name) {
    const { box, parts } = this.page;
    const part = parts.get(name);
    if (!part) return;
    const [inner, outer] = [part.getBoundingClientRect(), box.getBoundingClientRect()];
    const shift = (low, high, from, to) => (low < from ? low - from - 12 : high > to ? high - to + 12 : 0);
    box.scrollTop += shift(inner.top, inner.bottom, outer.top, outer.top + box.clientHeight);
    box.scrollLeft += shift(inner.left, inner.right, outer.left, outer.left + box.clientWidth);
  }

  words(name) {
    const [nodes, edges, starts, ends] = ["nodes", "edges", "starts", "ends"].map((each) => this.model.get(each));
    const { model } = this;
    const [scores, notes, unit] = ["scores", "notes", "unit"].map((each) => model.get(each));
    const at = edges.indexOf(name);
    if (at >= 0) return [name, `${formatNumber(scores[at])} ${unit}`.trim(), notes[at]].filter(Boolean).join("\n");
    const node = nodes.indexOf(name);
    const side = (list) => edges.map((_, i) => i).filter((i) => list[i] === node);
    const told = (list, what) => {
      const found = side(list);
      return found.length ? `${found.length} drawn ${what}, strongest ${edges[found[0]]} (${formatNumber(scores[found[0]])})` : `none drawn ${what}`;
    };
    const more = model.get("tip_for") === name ? [model.get("tip")] : [];
    return [name, told(ends, "into it"), told(starts, "out of it"), ...more].filter(Boolean).join("\n");
  }

  fillTip() {
    this.page.tip.textContent = this.hovered === null ? "" : this.words(this.hovered);
  }

  hover(name, event) {
    const { tip, parts } = this.page;
    if (name !== this.hovered) {
      if (parts.get(this.hovered)) parts.get(this.hovered).classList.remove("gv-hovered");
      if (parts.get(name)) parts.get(name).classList.add("gv-hovered");
      this.hovered = name;
      tip.hidden = name === null;
      if (tip.showPopover) name === null ? tip.hidePopover() : tip.showPopover();
      this.fillTip();
      clearTimeout(this.pointed);
      this.pointed = setTimeout(() => this.tellHover(name), HOVER_AFTER);
    }
    if (name === null) return;
    const place = (at, size, room) => Math.max(4, at + 14 + size > room ? at - size - 10 : at + 14);
    tip.style.left = `${place(event.clientX, tip.offsetWidth, window.innerWidth)}px`;
    tip.style.top = `${place(event.clientY, tip.offsetHeight, window.innerHeight)}px`;
  }

  tellHover(name) {
    this.model.set("hover", name);
    this.picks.save();
  }

  draw() {
    const { model, page } = this;
    if (this.stale) this.rebuild();
    const shown = new Set(this.picks.shown());
    const confirmed = new Set(model.get("selected"));
    const path = new Set(model.get("path_ends"));
    const cursor = this.cursor();
    let waiting = 0;
    for (const [name, part] of page.parts) {
      const pending = shown.has(name) !== confirmed.has(name);
      if (pending) waiting += 1;
      part.setAttribute("aria-selected", String(shown.has(name)));
      part.classList.toggle("gv-pending", pending);
      part.classList.toggle("gv-cursor", name === cursor);
      part.classList.toggle("gv-path", path.has(name));
    }
    const active = page.parts.get(cursor);
    if (active) page.box.setAttribute("aria-activedescendant", active.id);
    else page.box.removeAttribute("aria-activedescendant");
    page.box.setAttribute("aria-disabled", String(!this.picks.pickable()));
    page.root.classList.toggle("gv-still", !this.picks.pickable());
    this.showStatus(shown, waiting);
  }

  // How long it took, with the browser's layout of it, is noted for tests.
  rebuild() {
    const began = performance.now();
    this.hover(null);
    buildParts(this.page, this.model, formatNumber);
    this.stale = false;
    this.page.box.getBoundingClientRect();
    this.page.box.dataset.milliseconds = (performance.now() - began).toFixed(1);
  }

  showStatus(shown, waiting) {
    const [nodes, edges, total] = ["nodes", "edges", "total"].map((name) => this.model.get(name));
    const many = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
    const chosen = `${many(nodes.filter((name) => shown.has(name)).length, "node")} and ${many(edges.filter((name) => shown.has(name)).length, "edge")} selected`;
    let text = `${edges.length} of ${total.toLocaleString("en-US")} edges drawn · ${chosen}`;
    if (this.anchor && this.isNode(this.anchor)) text += ` · Shift+click (Shift+Enter) on another node: the path from ${this.anchor}`;
    if (waiting) text += ` · ${waiting} waiting for Python`;
    if (this.page.status.textContent !== text) this.page.status.textContent = text;
  }
}

export default {
  render({ model, el }) {
    const view = new GraphPage(model, el);
    return () => view.destroy();
  },
};
