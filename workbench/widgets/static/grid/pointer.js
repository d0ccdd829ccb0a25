// Mouse, pen and touch: a click toggles a cell, Shift and a drag adds a box, with Alt it removes one, a hover asks for a
// tooltip.

import { clamp, same } from "./cells.js";

export class Pointer {
  // `layout()` is the layout as it is drawn.
  constructor(cells, actions, tooltip, layout, redraw) {
    Object.assign(this, { cells, actions, tooltip, layout, redraw });
    this.press = null; // the cell under a plain mouse button
    const on = (name, handler) => cells.addEventListener(name, handler.bind(this));
    on("pointerdown", this.down);
    on("pointermove", this.move);
    on("pointerup", this.up);
    on("pointercancel", this.cancel);
    on("pointerleave", () => tooltip.show(null));
  }

  cellAt(event) {
    const area = this.cells.getBoundingClientRect();
    const { nRows, nCols } = this.actions.size();
    const c = Math.floor((event.clientX - area.left) / this.layout().cellWidth);
    const r = Math.floor((event.clientY - area.top) / this.layout().cellHeight);
    return { cell: [clamp(r, 0, nRows - 1), clamp(c, 0, nCols - 1)], inside: r >= 0 && c >= 0 && r < nRows && c < nCols };
  }

  // Whether this pointer is drawing the box.
  draws(event) {
    return this.actions.box && this.actions.box.pointer === event.pointerId;
  }

  down(event) {
    if (event.button !== 0) return;
    event.preventDefault(); // no text selection while dragging
    this.cells.focus({ preventScroll: true });
    const { cell } = this.cellAt(event);
    this.actions.box = null;
    if (event.shiftKey && this.actions.pickable()) {
      this.cells.setPointerCapture(event.pointerId);
      this.actions.box = { from: cell, to: cell, remove: event.altKey, pointer: event.pointerId };
    } else this.press = cell;
    this.redraw();
  }

  move(event) {
    const { cell, inside } = this.cellAt(event);
    if (this.draws(event)) {
      if (!same(this.actions.box.to, cell)) {
        this.actions.box.to = cell;
        this.redraw();
      }
      return;
    }
    this.tooltip.show(inside ? cell : null);
  }

  up(event) {
    const { cell, inside } = this.cellAt(event);
    if (this.draws(event)) {
      this.actions.setCursor(this.actions.box.to);
      this.actions.takeBox(this.actions.box.remove);
    } else if (this.press && inside && same(this.press, cell)) {
      this.actions.setCursor(cell);
      this.actions.toggle(cell);
    }
    this.press = null;
  }

  cancel() {
    this.press = this.actions.box = null;
    this.redraw();
  }
}
