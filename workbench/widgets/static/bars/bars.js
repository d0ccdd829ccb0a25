// BarList: a list of names with bars, of which several can be selected. Python owns what is selected: see picks.js.

import { PickView } from "../grid/view.js";
import { formatNumber } from "../grid/words.js";
import { setGround, watchTheme } from "../theme.js";
import { buildList, buildRows, showHeadings } from "./page.js";
import { handleKey } from "./keyboard.js";

const ROWS = ["names", "values", "notes", "limit", "unit", "list_height", "pinnable"];
const HOVER_EVERY = 50; // ms between two messages to Python
let lists = 0;

class BarListView extends PickView {
  constructor(model, el) {
    super(model, buildList(el, `bl-${Date.now().toString(36)}-${lists++}`));
    this.lastSent = 0;
    const redraw = () => this.redraw(false);
    const on = (name, handler) => this.page.list.addEventListener(name, handler);
    on("click", (event) => this.clicked(event));
    on("dblclick", (event) => this.pin(this.nameAt(event)));
    on("mousedown", (event) => event.detail > 1 && event.preventDefault()); // no text selection by a double click
    on("pointerover", (event) => this.hover(this.nameAt(event)));
    on("pointerleave", () => this.hover(null));
    on("keydown", (event) => handleKey(event, this));
    on("focus", redraw);
    on("blur", redraw);
    this.listenTo(ROWS, () => this.redraw(true));
    this.listenTo(["cursor", "pinned", "selectable", "disabled", "kind"], redraw);
    this.listenTo(["title", "alt", "problem"], () => showHeadings(this.page, model));
    this.stopWatching = watchTheme(() => setGround(this.page.root));
    setGround(this.page.root);
    showHeadings(this.page, model);
    this.draw();
    this.picks.connectionChanged();
  }

  names() {
    return this.model.get("names");
  }

  // Python may have set a name that the list has no more.
  cursor() {
    const cursor = this.model.get("cursor");
    return this.names().includes(cursor) ? cursor : null;
  }

  nameAt(event) {
    const row = event.target.closest && event.target.closest(".bl-row");
    return row ? this.names()[Number(row.dataset.at)] : null;
  }

  clicked(event) {
    const name = this.nameAt(event);
    if (name === null || name === undefined) return;
    this.setCursor(name);
    if (event.target.closest(".bl-pin")) this.pin(name);
    else this.toggle(name);
  }

  toggle(name) {
    if (!this.picks.pickable()) return;
    const shown = new Set(this.picks.shown());
    if (!shown.delete(name)) shown.add(name);
    this.picks.ask(this.names().filter((each) => shown.has(each)));
  }

  takeAll() {
    if (this.picks.pickable()) this.picks.ask([...this.names()]);
  }

  pin(name) {
    if (name !== null && name !== undefined && this.model.get("pinnable")) this.picks.tell({ event: "pin", item: name });
  }

  // Within the list only: the page around it stays where it is.
  reveal(name) {
    const { list } = this.page;
    const row = list.children[this.names().indexOf(name)];
    if (!row) return;
    if (row.offsetTop < list.scrollTop) list.scrollTop = row.offsetTop;
    const below = row.offsetTop + row.offsetHeight - list.clientHeight;
    if (below > list.scrollTop) list.scrollTop = below;
  }

  hover(name) {
    const at = name === undefined ? null : name;
    if (this.hovered === at) return;
    this.hovered = at;
    clearTimeout(this.timer);
    const send = () => {
      this.lastSent = performance.now();
      this.model.set("hover", this.hovered);
      this.picks.save();
    };
    const wait = this.lastSent + HOVER_EVERY - performance.now();
    if (wait <= 0) send();
    else this.timer = setTimeout(send, wait);
  }

  draw() {
    const { model, page } = this;
    if (this.stale) buildRows(page, model, formatNumber);
    this.stale = false;
    const shown = new Set(this.picks.shown());
    const confirmed = new Set(model.get("selected"));
    const pinned = new Set(model.get("pinned"));
    const cursor = this.cursor();
    const names = this.names();
    let waiting = 0;
    names.forEach((name, i) => {
      const row = page.list.children[i];
      const pending = shown.has(name) !== confirmed.has(name);
      if (pending) waiting += 1;
      row.setAttribute("aria-selected", String(shown.has(name)));
      row.classList.toggle("bl-pending", pending);
      row.classList.toggle("bl-cursor", name === cursor);
      row.classList.toggle("bl-pinned", pinned.has(name));
    });
    const active = page.list.children[Math.max(0, names.indexOf(cursor))];
    if (active) page.list.setAttribute("aria-activedescendant", active.id);
    else page.list.removeAttribute("aria-activedescendant");
    page.list.setAttribute("aria-disabled", String(!this.picks.pickable()));
    page.root.classList.toggle("bl-still", !this.picks.pickable());
    const kind = model.get("kind");
    let text = names.length ? `${shown.size} of ${names.length} ${kind}${names.length === 1 ? "" : "s"} selected` : "";
    if (waiting) text += ` · ${waiting} waiting for Python`;
    if (page.status.textContent !== text) page.status.textContent = text;
  }
}

export default {
  render({ model, el }) {
    const view = new BarListView(model, el);
    return () => view.destroy();
  },
};
