// HeatGrid: a heat map on two canvases. Python owns what is selected (see picks.js); nothing here decides it.

import { Actions } from "./actions.js";
import { readTheme } from "./colours.js";
import { readData } from "./data.js";
import { handleKey } from "./keyboard.js";
import { font, layOut } from "./layout.js";
import { drawMarks } from "./marks.js";
import { buildPage, resize, showTexts } from "./page.js";
import { drawPicture } from "./picture.js";
import { Pointer } from "./pointer.js";
import { Tooltip } from "./tooltip.js";
import { PickView } from "./view.js";
import { setGround, watchTheme } from "../theme.js";
import { actsOn, describe } from "./words.js";

const PICTURE = ["data", "shape", "rows", "cols", "limit", "colours", "unit", "row_title", "col_title", "groups", "group_name", "marked", "words", "scale_mode", "clip", "cell_width", "cell_height"];
let views = 0;

class HeatGridView extends PickView {
  constructor(model, el) {
    super(model, buildPage(el, `hg-${Date.now().toString(36)}-${views++}`));
    const redraw = () => this.redraw(false);
    this.actions = new Actions(model, this.picks, () => this.data, redraw);
    const acts = (cell) => actsOn(model, this.data, this.picks.shown(), this.picks.pickable(), cell);
    this.tooltip = new Tooltip(model, this.page, () => this.data, () => this.layout, acts, () => this.picks.save());
    this.pointer = new Pointer(this.page, this.actions, this.tooltip, () => this.layout, redraw);
    const on = (name, handler) => this.page.cells.addEventListener(name, handler);
    on("keydown", (event) => handleKey(event, this.actions, this.tooltip, redraw));
    on("focus", redraw);
    on("blur", () => (this.tooltip.show(null), redraw()));
    this.listenTo(PICTURE, () => this.redraw(true));
    this.listenTo(["cursor", "pinned", "selectable", "disabled", "kind", "row_kind", "row_unit"], redraw);
    this.listenTo(["title", "alt", "problem", "descriptions", "pinnable"], () => showTexts(this.page, model));
    this.listenTo(["tip", "tip_for", "tip_picks", "pattern", "naming"], () => this.tooltip.fill());
    this.sizes = new ResizeObserver(() => this.page.root.clientWidth !== this.layout.rootWidth && this.redraw(true));
    this.sizes.observe(this.page.root);
    this.stopWatching = watchTheme(() => this.redraw(true));
    showTexts(this.page, model);
    this.draw();
    this.picks.connectionChanged();
  }

  destroy() {
    super.destroy();
    this.sizes.disconnect();
    this.tooltip.destroy();
  }

  pinned() {
    return this.model.get("pinned").filter(([r, c]) => r < this.data.nRows && c < this.data.nCols);
  }

  draw() {
    const { model, page } = this;
    if (this.stale) {
      this.stale = false;
      const before = this.data;
      this.data = readData(model);
      // A box of another size is none.
      if (before && (before.nRows !== this.data.nRows || before.nCols !== this.data.nCols)) this.actions.box = null;
      setGround(page.root);
      page.names.hidden = !(model.get("pinnable") && this.data.nCols === 1);
      this.theme = readTheme(page.root, model);
      const ctx = page.picture.getContext("2d");
      const measure = (text, bold) => ((ctx.font = font(this.theme, bold)), ctx.measureText(text).width);
      this.layout = layOut(this.data, this.theme, page.root.clientWidth, measure);
      resize(page, this.layout);
      drawPicture(page.picture, this.data, this.layout, this.theme);
    }
    const shown = this.picks.shown();
    const { box } = this.actions;
    const cursor = this.actions.cursor();
    const focused = page.cells === document.activeElement;
    const state = { selected: model.get("selected"), wanted: shown, box, cursor, pinned: this.pinned(), focused, dots: !model.get("row_kind") && !this.data.words.length };
    const waiting = drawMarks(page.marks, this.data, this.layout, this.theme, state);
    describe(page, model, this.data, { shown, box, cursor, waiting });
    this.tooltip.sayActs();
  }
}

export default {
  render({ model, el }) {
    const view = new HeatGridView(model, el);
    return () => view.destroy();
  },
};
