// The tooltip of the cell under the pointer or the cursor: its name, its value, and what Python adds about it.

import { same } from "./cells.js";
import { make } from "./page.js";
import { cut, nameOf, valueOf } from "./words.js";

const HOVER_EVERY = 50; // ms between two messages to Python

export class Tooltip {
  // `data()` and `layout()` are those that are drawn; `save` sends what changed to Python.
  constructor(model, page, data, layout, save) {
    Object.assign(this, { model, data, layout, save, tip: page.tip, cells: page.cells });
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
    make(this.tip, "div", "hg-tip-name").textContent = nameOf(this.model, cell);
    make(this.tip, "div", "hg-tip-value").textContent = valueOf(this.model, this.data(), cell);
    if (same(this.model.get("tip_for"), cell)) {
      if (this.model.get("tip")) make(this.tip, "div", "hg-tip-text").textContent = this.model.get("tip");
      this.fillPattern(this.model.get("pattern"));
    }
    this.tip.hidden = false;
    if (this.tip.showPopover && this.tip.isConnected && !this.tip.matches(":popover-open")) this.tip.showPopover();
    this.place(cell);
  }

  // Below and to the right of the cell, or on the other side where the window ends.
  place([r, c]) {
    const { cellWidth, cellHeight } = this.layout();
    const area = this.cells.getBoundingClientRect();
    const x = area.left + (c + 1) * cellWidth + 10;
    const y = area.top + (r + 1) * cellHeight + 10;
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const left = x + width > window.innerWidth ? area.left + c * cellWidth - width - 10 : x;
    const top = y + height > window.innerHeight ? area.top + r * cellHeight - height - 10 : y;
    this.tip.style.left = `${Math.max(0, left)}px`;
    this.tip.style.top = `${Math.max(0, top)}px`;
  }

  // The tokens that get the most attention, in the prompt's order. Of several queries, the last.
  fillPattern(pattern) {
    if (!pattern || !pattern.tokens || !pattern.weights || !pattern.weights.length) return;
    const weights = Array.isArray(pattern.weights[0]) ? pattern.weights[pattern.weights.length - 1] : pattern.weights;
    const order = weights.map((_, i) => i).sort((a, b) => weights[b] - weights[a]).slice(0, 12).sort((a, b) => a - b);
    const most = Math.max(...weights, 1e-12);
    const bars = make(this.tip, "div", "hg-bars");
    for (const i of order) {
      make(bars, "span").textContent = cut(String(pattern.tokens[i]));
      make(bars, "div", "hg-bar").style.width = `${(90 * weights[i]) / most}px`;
      make(bars, "span").textContent = weights[i].toFixed(2);
    }
    const others = weights.length - order.length;
    if (others > 0) make(this.tip, "div").textContent = `and ${others} tokens with less`;
  }
}
