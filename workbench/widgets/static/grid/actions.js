// What a hand can do with a map, by pointer or by keyboard: pick a cell, pick a box, move the cursor, pin, undo.

import { cellsOf, corners, maskOf, same } from "./cells.js";

export class Actions {
  // `size()` is {nRows, nCols, values} of the map as it is drawn.
  constructor(model, picks, size, redraw) {
    Object.assign(this, { model, picks, size, redraw });
    this.box = null; // {from, to, remove, pointer}: a selection in progress
  }

  pick(mask) {
    this.picks.ask(cellsOf(mask, this.size().nCols));
  }

  // A cell without a value cannot be added, but Python may have selected it, and then it can be removed.
  toggle([r, c]) {
    if (!this.picks.pickable()) return;
    const { values, nCols } = this.size();
    const mask = maskOf(this.picks.shown(), this.size());
    const i = r * nCols + c;
    if (!mask[i] && Number.isNaN(values[i])) return;
    mask[i] ^= 1;
    this.pick(mask);
  }

  takeBox(remove) {
    const { values, nCols } = this.size();
    const [r0, r1, c0, c1] = corners(this.box);
    this.box = null;
    const before = maskOf(this.picks.shown(), this.size());
    const mask = before.slice();
    for (let r = r0; r <= r1; r++) {
      for (let c = c0; c <= c1; c++) {
        const i = r * nCols + c;
        if (remove) mask[i] = 0;
        else if (!Number.isNaN(values[i])) mask[i] = 1;
      }
    }
    if (mask.some((on, i) => on !== before[i])) this.pick(mask);
    this.redraw();
  }

  // Python says what is pinned then.
  pin(cell) {
    if (cell && this.model.get("pinnable")) this.picks.tell({ event: "pin", item: cell });
  }

  takeBack(again) {
    this.picks.tell({ event: again ? "redo" : "undo" });
  }

  takeAll() {
    this.pick(Uint8Array.from(this.size().values, (value) => (Number.isNaN(value) ? 0 : 1)));
  }

  // Python may have set a cell that a map of another size had.
  cursor() {
    const cursor = this.model.get("cursor");
    const { nRows, nCols } = this.size();
    return cursor && cursor[0] < nRows && cursor[1] < nCols ? cursor : null;
  }

  setCursor(cell) {
    if (same(this.cursor(), cell)) return this.redraw();
    this.model.set("cursor", cell);
    this.picks.save();
  }
}
