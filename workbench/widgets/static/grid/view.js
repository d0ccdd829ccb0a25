// PickView: what the views of a map, of a list and of a graph share. A subclass draws, in `draw()`, and watches the theme.

import { Picks } from "./picks.js";

export class PickView {
  constructor(model, page) {
    Object.assign(this, { model, page, frame: 0, listeners: [], stale: true });
    this.picks = new Picks(model, page, () => this.redraw(false));
    this.listenTo(["selected", "ack", "seq", "picked"], () => this.picks.answered());
  }

  listenTo(names, callback) {
    for (const name of names.map((trait) => `change:${trait}`)) {
      this.model.on(name, callback);
      this.listeners.push([name, callback]);
    }
  }

  destroy() {
    for (const [name, callback] of this.listeners) this.model.off(name, callback);
    this.stopWatching();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    this.picks.destroy();
  }

  // In the next frame, once for all changes until then. `all`: all that is shown, not only what is selected of it.
  redraw(all) {
    this.stale = this.stale || all;
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }

  setCursor(name, reveal = true) {
    if (this.model.get("cursor") === name) return;
    this.model.set("cursor", name);
    this.picks.save();
    this.redraw(false);
    if (reveal) this.reveal(name);
  }
}
