// What Python has selected, and what the browser asked it for.
//
// Python owns `selected`. A pick sends `picked` with a new number `seq`; it is pending until Python answers with `ack`
// >= `seq`. While it is pending the map shows `picked`, dashed, and then `selected`. What is no selection (undo, a pin)
// is a message of its own, which waits for the answer to the picks before it.

import { connectionOf } from "../kernel.js";

const PATIENCE = 1500; // ms without an answer before the banner

export class Picks {
  // `redraw` is called after a change of the browser's own.
  constructor(model, page, redraw) {
    Object.assign(this, { model, page, redraw, waiting: [] });
    this.connection = connectionOf(model);
    this.stopWatching = this.connection.watch(() => this.connectionChanged());
  }

  destroy() {
    this.stopWatching();
    clearTimeout(this.patience);
  }

  pending() {
    return this.model.get("seq") > this.model.get("ack");
  }

  // Whether a hand may change what is selected.
  pickable() {
    return this.model.get("selectable") && !this.model.get("disabled");
  }

  // The cells to show as selected.
  shown() {
    return this.pending() ? this.model.get("picked") : this.model.get("selected");
  }

  ask(cells) {
    // What equals the last pick would not be sent again.
    this.model.set("picked", null, { silent: true });
    this.model.set("picked", cells);
    this.model.set("seq", Math.max(this.model.get("seq"), this.model.get("ack")) + 1);
    this.save();
    this.waitForAnswer();
    this.redraw();
  }

  // One message for all that a click changes: the next one is held back until Python has dealt with this one.
  save() {
    queueMicrotask(() => this.model.save_changes());
  }

  // Nothing is kept for a kernel that is not there: an undo that comes with a later kernel would undo something else.
  tell(message) {
    if (!this.connection.live()) return;
    if (this.pending()) this.waiting.push(message);
    else this.model.send(message);
  }

  answered() {
    if (!this.pending()) {
      for (const message of this.waiting.splice(0)) this.model.send(message);
      clearTimeout(this.patience);
      this.page.banner.hidden = true;
    }
    this.redraw();
  }

  waitForAnswer() {
    clearTimeout(this.patience);
    const late = () => {
      if (!this.pending()) return;
      this.page.banner.textContent = "Kernel busy or not connected: the dashed change has not reached Python.";
      this.page.banner.hidden = false;
    };
    if (this.connection.live()) this.patience = setTimeout(late, PATIENCE);
    else late();
  }

  connectionChanged() {
    const connected = this.connection.live();
    this.page.badge.hidden = connected;
    if (!connected) this.waiting = [];
    if (!this.pending()) return;
    if (connected) this.save(); // what could not be sent before
    this.waitForAnswer();
  }
}
