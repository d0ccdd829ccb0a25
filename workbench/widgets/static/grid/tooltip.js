// The tooltip of the cell under the pointer or the cursor: its name, its value, and what Python adds about it.

import { clamp, same } from "./cells.js";
import { make } from "./page.js";
import { cut, namePartsOf, valueOf, visible } from "./words.js";

const HOVER_EVERY = 50; // ms between two messages to Python
const MOST = 5; // tokens of a pattern
const GAP = 10; // px between a cell and its tooltip

export class Tooltip {
  // `data()` and `layout()` are those that are drawn; `acts(cell)` is what a click there does, in words; `save` sends what
  // changed to Python.
  constructor(model, page, data, layout, acts, save) {
    Object.assign(this, { model, data, layout, acts, save, tip: page.tip, cells: page.cells, root: page.root });
    this.hovered = undefined; // nothing said to Python yet
    this.lastSent = 0;
  }

  destroy() {
    clearTimeout(this.timer);
    this.tip.remove();
  }

  // Shows the tooltip of a cell, or hides it for null, and tells Python.
  show(cell) {
    if (same(this.hovered, cell)) return;
    this.hovered = cell;
    this.fill();
    clearTimeout(this.timer);
    const send = () => {
      this.lastSent = performance.now();
      this.model.set("hover", cell);
      this.save();
    };
    const wait = this.lastSent + HOVER_EVERY - performance.now();
    if (wait <= 0) send();
    else this.timer = setTimeout(send, wait);
  }

  fill() {
    const cell = this.hovered;
    if (!cell) {
      if (this.tip.hidePopover && this.tip.matches(":popover-open")) this.tip.hidePopover();
      this.tip.hidden = true;
      return;
    }
    this.tip.replaceChildren();
    const head = make(this.tip, "div", "hg-tip-head");
    const name = make(head, "span", "hg-tip-name");
    for (const { text, label } of namePartsOf(this.model, cell)) make(name, label ? "bdi" : "span").textContent = text;
    head.append(": ");
    make(head, "span", "hg-tip-value").textContent = valueOf(this.model, this.data(), cell);
    if (same(this.model.get("tip_for"), cell)) {
      if (this.model.get("tip")) make(this.tip, "div", "hg-tip-text").textContent = this.model.get("tip");
      this.fillPattern(this.model.get("pattern"));
    }
    make(this.tip, "div", "hg-tip-acts");
    this.sayActs();
    this.tip.hidden = false;
    if (this.tip.showPopover && this.tip.isConnected && !this.tip.matches(":popover-open")) this.tip.showPopover();
    this.place(cell);
  }

  // What a click does changes with the selection, and the pointer is still there.
  sayActs() {
    const line = this.tip.querySelector(".hg-tip-acts");
    const words = line && this.hovered ? this.acts(this.hovered) : "";
    if (line && line.textContent !== words) line.textContent = words;
  }

  // Where it covers the least of other maps and lists; first choice: below and to the right of the cell.
  place([r, c]) {
    const { cellWidth, cellHeight } = this.layout();
    const area = this.cells.getBoundingClientRect();
    const own = this.root.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const right = area.left + (c + 1) * cellWidth + GAP, left = area.left + c * cellWidth - width - GAP;
    const below = area.top + (r + 1) * cellHeight + GAP, above = area.top + r * cellHeight - height - GAP;
    const within = Math.max(0, Math.min(right, own.right - width));
    const others = [...document.querySelectorAll(".hg-cells, .bl-list")].filter((node) => node !== this.cells);
    const taken = others.map((node) => node.getBoundingClientRect());
    const cost = ([x, y]) => {
      if (x < 0 || y < 0 || x + width > window.innerWidth || y + height > window.innerHeight) return Infinity;
      const shared = (low, high, from, size) => Math.max(0, Math.min(high, from + size) - Math.max(low, from));
      return taken.reduce((sum, one) => sum + shared(one.left, one.right, x, width) * shared(one.top, one.bottom, y, height), 0);
    };
    const places = [right, within, left].flatMap((x) => [[x, below], [x, above]]);
    const [x, y] = places.reduce((best, next) => (cost(next) < cost(best) ? next : best));
    this.tip.style.left = `${clamp(x, 0, Math.max(0, window.innerWidth - width))}px`;
    this.tip.style.top = `${clamp(y, 0, Math.max(0, window.innerHeight - height))}px`;
  }

  // The tokens that get the most attention, in the prompt's order. Of several queries, the last.
  fillPattern(pattern) {
    if (!pattern || !pattern.tokens || !pattern.weights || !pattern.weights.length) return;
    const weights = Array.isArray(pattern.weights[0]) ? pattern.weights[pattern.weights.length - 1] : pattern.weights;
    const ranked = weights.map((_, i) => i).sort((a, b) => weights[b] - weights[a]);
    const order = ranked.filter((i, rank) => rank === 0 || (rank < MOST && weights[i] >= 0.005)).sort((a, b) => a - b);
    const most = Math.max(...weights, 1e-12);
    const bars = make(this.tip, "div", "hg-bars");
    for (const i of order) {
      make(bars, "span", "hg-token").textContent = cut(visible(String(pattern.tokens[i])));
      make(bars, "div", "hg-bar").style.width = `${(90 * weights[i]) / most}px`;
      make(bars, "span").textContent = weights[i].toFixed(2);
    }
    const others = weights.length - order.length;
    if (others > 0) make(this.tip, "div").textContent = `and ${others} more token${others === 1 ? "" : "s"}`;
  }
}
