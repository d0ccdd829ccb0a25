// Whether a kernel listens to a widget, and the widget to the kernel.

import { hear } from "./hearing.js";

const LOOK_EVERY = 1000; // ms
const GONE = ["dead", "terminating", "restarting", "autorestarting"];
const WATCH = Symbol.for("workbench.kernel");
const BORN = Symbol.for("workbench.born");

// The kernel of a page's widgets. ipywidgets notices only restarts that were asked for; one that was shut down, died or
// was replaced leaves widgets behind that look alive. Each of these counts as a death.
class KernelWatch {
  constructor(manager) {
    this.manager = manager;
    this.deaths = 0;
    this.listeners = new Set();
    this.kernel = this.current();
    this.away = this.gone();
  }

  // A manager whose notebook was closed has none to ask for.
  current() {
    return this.manager.isDisposed ? null : this.manager.kernel;
  }

  // Pages other than JupyterLab's do not say: then nothing is known to be gone.
  gone() {
    const kernel = this.current();
    return kernel !== undefined && (kernel === null || kernel.isDisposed || GONE.includes(kernel.status));
  }

  look() {
    const kernel = this.current();
    const away = this.gone();
    const replaced = Boolean(kernel && this.kernel && kernel.id !== this.kernel.id);
    const died = (away && !this.away) || (replaced && !this.away);
    if (kernel) this.follow(kernel);
    this.away = away;
    if (!died) return;
    this.deaths += 1;
    for (const listener of [...this.listeners]) listener();
  }

  // A kernel that restarts by itself may be back before the next look.
  follow(kernel) {
    if (kernel === this.kernel && this.followed) return;
    this.kernel = kernel;
    this.followed = Boolean(kernel.statusChanged);
    if (this.followed) kernel.statusChanged.connect(() => this.look());
  }

  add(listener) {
    this.listeners.add(listener);
    if (this.timer === undefined) this.timer = setInterval(() => this.look(), LOOK_EVERY);
    this.look();
  }

  remove(listener) {
    this.listeners.delete(listener);
    if (this.listeners.size) return;
    clearInterval(this.timer);
    this.timer = undefined;
  }
}

// One for all widgets of a page, whichever module asks first.
function watchOf(model) {
  const manager = model.widget_manager;
  if (!manager) return { deaths: 0, look() {}, add() {}, remove() {} };
  manager[WATCH] = manager[WATCH] || new KernelWatch(manager);
  return manager[WATCH];
}

// anywidget hides whether the model is connected; its layout is a model of its own, which says so.
export function connectionOf(model) {
  hear(model);
  const layout = model.get("layout");
  const kernel = watchOf(model);
  const holder = layout || {}; // a view that is drawn again is of the same kernel as the one before
  kernel.look();
  if (holder[BORN] === undefined) holder[BORN] = kernel.deaths;
  return {
    live: () => (!layout || layout.comm_live !== false) && holder[BORN] === kernel.deaths,
    // Calls back on every change; returns the function that takes it back.
    watch(callback) {
      if (layout && layout.on) layout.on("comm_live_update", callback);
      kernel.add(callback);
      return () => {
        if (layout && layout.off) layout.off("comm_live_update", callback);
        kernel.remove(callback);
      };
    },
  };
}
