// Mouse, pen and touch: a click toggles a cell, a drag adds a box and with Alt, Ctrl or Cmd removes one, a double click
// pins, a hover asks for a tooltip. A finger that drags scrolls the page.

import { clamp, same } from "./cells.js";

const FAR = 4; // pixels that a press moves before it is a drag: hands shake

export class Pointer {
  // `layout()` is the layout as it is drawn.
  constructor(page, actions, tooltip, layout, redraw) {
    Object.assign(this, { cells: page.cells, actions, tooltip, layout, redraw });
    this.press = null; // {cell, x, y, pointer, drags}: a button that is held and has not moved far
    const on = (name, handler) => page.cells.addEventListener(name, handler.bind(this));
    on("pointerdown", this.down);
    on("pointermove", this.move);
    on("pointerup", this.up);
    on("pointercancel", this.cancel);
    on("pointerleave", () => tooltip.show(null));
    on("dblclick", (event) => actions.pin(this.cellAt(event).cell));
    page.names.addEventListener("click", (event) => actions.pin([this.cellAt(event).cell[0], 0]));
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

  holds(event) {
    return this.press && this.press.pointer === event.pointerId;
  }

  far(event) {
    return Math.hypot(event.clientX - this.press.x, event.clientY - this.press.y) >= FAR;
  }

  down(event) {
    if (event.button !== 0) return;
    event.preventDefault(); // no text selection while dragging
    this.cells.focus({ preventScroll: true });
    this.actions.box = null;
    const drags = this.actions.picks.pickable() && (event.shiftKey || event.pointerType !== "touch");
    this.press = { cell: this.cellAt(event).cell, x: event.clientX, y: event.clientY, pointer: event.pointerId, drags };
    if (drags) this.cells.setPointerCapture(event.pointerId);
    if (drags && event.shiftKey) this.begin(event); // a box from the first pixel on
    this.redraw();
  }

  begin(event) {
    const remove = event.altKey || event.ctrlKey || event.metaKey;
    this.actions.box = { from: this.press.cell, to: this.cellAt(event).cell, remove, pointer: event.pointerId };
    this.press = null;
    this.tooltip.show(null);
    this.redraw();
  }

  move(event) {
    const { cell, inside } = this.cellAt(event);
    this.showShape(event);
    if (this.draws(event)) {
      if (!same(this.actions.box.to, cell)) {
        this.actions.box.to = cell;
        this.redraw();
      }
      return;
    }
    if (this.holds(event) && this.press.drags && this.far(event) && !same(cell, this.press.cell)) return this.begin(event);
    this.tooltip.show(inside ? cell : null);
  }

  up(event) {
    const { cell, inside } = this.cellAt(event);
    if (this.draws(event)) {
      this.actions.setCursor(this.actions.box.to);
      this.actions.takeBox(this.actions.box.remove);
    } else if (this.holds(event) && (!this.far(event) || (inside && same(this.press.cell, cell)))) {
      this.actions.setCursor(this.press.cell);
      this.actions.toggle(this.press.cell);
    }
    this.press = null;
    this.showShape(event);
  }

  cancel() {
    this.press = this.actions.box = null;
    this.redraw();
  }

  // The pointer's shape says what a press does, and what the box that is drawn will do.
  showShape(event) {
    const { box } = this.actions;
    let shape = this.actions.picks.pickable() ? "pick" : "look";
    if (box) shape = box.remove ? "remove" : "add";
    else if (shape === "pick" && (event.altKey || event.ctrlKey || event.metaKey)) shape = "remove";
    if (this.cells.dataset.press !== shape) this.cells.dataset.press = shape;
  }
}
