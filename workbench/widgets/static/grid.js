// HeatGrid: a heat map on two canvases (picture, marks) under one focusable ARIA grid with a single virtual cell.
//
// Python owns `selected`. A click sends `picked` with a new number `seq`; the map shows the change dashed until Python
// answers with `ack` >= `seq`, and then shows `selected`. Nothing here decides what is selected.
// Every text comes from a model or a user and is written with textContent or fillText, never as markup.

const LIGHT = ["#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#ffffff", "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"];
const DARK = ["#c6e2f2", "#92c5de", "#4393c3", "#2a6fab", "#1d3f63", "#202326", "#5c2a25", "#ad3e35", "#d6604d", "#f4a582", "#fcdccb"];
const PATIENCE = 1500; // ms without an answer before the banner
const HOVER_EVERY = 50; // ms
const FONT = 11; // px of the labels
const SIN60 = Math.sin(Math.PI / 3);
const LONGEST = 48; // characters of a label; the tooltip has all of it
const BAR = { width: 180, height: 9, zone: 40 }; // the colour bar above the map
let views = 0;

export default {
  render({ model, el }) {
    const view = new HeatGridView(model, el);
    return () => view.destroy();
  },
};

class HeatGridView {
  constructor(model, el) {
    this.model = model;
    this.id = `hg-${Date.now().toString(36)}-${views++}`;
    this.build(el);
    this.press = null; // the cell under a plain mouse button
    this.box = null; // {from, to, remove, pointer}: a selection in progress
    this.lastHover = 0;
    this.frame = 0;
    this.listeners = [];
    this.listenTo(["data", "shape", "rows", "cols", "limit", "unit", "row_title", "col_title", "groups", "marked", "cell_width", "cell_height"], () => this.redraw(true));
    this.listenTo(["selected", "ack", "seq", "picked"], () => this.answered());
    this.listenTo(["cursor", "selectable", "disabled", "kind"], () => this.redraw(false));
    this.listenTo(["title", "alt", "problem", "descriptions"], () => this.texts());
    this.listenTo(["tip", "tip_for", "pattern"], () => this.fillTip());
    // anywidget hides whether the model is connected; its layout is a model of its own, which says so.
    this.line = model.get("layout");
    this.onLine = () => this.lineChanged();
    if (this.line && this.line.on) this.line.on("comm_live_update", this.onLine);
    this.sizes = new ResizeObserver(() => this.root.clientWidth !== this.width && this.redraw(true));
    this.sizes.observe(this.root);
    this.themes = new MutationObserver(() => this.redraw(true));
    this.themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
    this.texts();
    this.draw(true);
    this.lineChanged();
  }

  listenTo(names, callback) {
    for (const name of names.map((one) => `change:${one}`)) {
      this.model.on(name, callback);
      this.listeners.push([name, callback]);
    }
  }

  destroy() {
    for (const [name, callback] of this.listeners) this.model.off(name, callback);
    if (this.line && this.line.off) this.line.off("comm_live_update", this.onLine);
    this.sizes.disconnect();
    this.themes.disconnect();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.patience);
    clearTimeout(this.hoverTimer);
    this.tip.remove();
  }

  // ---------------------------------------------------------------- the page

  build(el) {
    const make = (parent, tag, name, attributes = {}) => {
      const node = document.createElement(tag);
      if (name) node.className = name;
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      parent.append(node);
      return node;
    };
    this.make = make;
    this.root = make(el, "div", "hg-root");
    this.title = make(this.root, "div", "hg-title");
    this.badge = make(this.root, "div", "hg-badge");
    this.badge.textContent = "Not connected to a kernel: run the cell again to pick here.";
    this.banner = make(this.root, "div", "hg-banner", { role: "alert", hidden: "" });
    this.problem = make(this.root, "div", "hg-problem", { role: "alert", hidden: "" });
    this.scroll = make(this.root, "div", "hg-scroll");
    this.stage = make(this.scroll, "div", "hg-stage");
    this.picture = make(this.stage, "canvas", "hg-picture", { "aria-hidden": "true" });
    this.marks = make(this.stage, "canvas", "hg-marks", { "aria-hidden": "true" });
    this.cells = make(this.stage, "div", "hg-cells", { role: "grid", tabindex: "0", "aria-multiselectable": "true" });
    this.cells.setAttribute("data-lm-suppress-shortcuts", "true"); // or the keys a and b insert cells into the notebook
    this.row = make(this.cells, "div", "hg-hidden", { role: "row" });
    this.cell = make(this.row, "div", "", { role: "gridcell", id: `${this.id}-cell` });
    this.status = make(this.root, "div", "hg-status", { role: "status" });
    this.tip = make(this.root, "div", "hg-tip", { "aria-hidden": "true", hidden: "" });
    if (this.tip.showPopover) this.tip.setAttribute("popover", "manual"); // above everything, not cut by the output area
    const on = (name, handler) => this.cells.addEventListener(name, handler.bind(this));
    on("pointerdown", this.pointerDown);
    on("pointermove", this.pointerMove);
    on("pointerup", this.pointerUp);
    on("pointercancel", this.pointerCancel);
    on("pointerleave", () => this.setHover(null));
    on("keydown", this.keyDown);
    on("focus", () => this.redraw(false));
    on("blur", () => (this.setHover(null), this.redraw(false)));
  }

  texts() {
    const get = (name) => this.model.get(name);
    this.title.textContent = get("title");
    this.title.hidden = !get("title");
    this.cells.setAttribute("aria-label", get("alt") || get("title") || "Heat map");
    this.problem.textContent = get("problem");
    this.problem.hidden = !get("problem");
  }

  // ---------------------------------------------------------------- what Python knows and what it was asked

  pending() {
    return this.model.get("seq") > this.model.get("ack");
  }

  shown() {
    return this.pending() ? this.model.get("picked") : this.model.get("selected");
  }

  connected() {
    return !this.line || this.line.comm_live !== false;
  }

  lineChanged() {
    this.badge.hidden = this.connected();
    if (!this.pending()) return;
    if (this.connected()) this.save(); // what could not be sent before
    this.waitForAnswer();
  }

  pick(mask) {
    const cells = [];
    for (let i = 0; i < mask.length; i++) if (mask[i]) cells.push([Math.floor(i / this.nCols), i % this.nCols]);
    this.model.set("picked", null, { silent: true }); // what equals the last pick would not be sent again
    this.model.set("picked", cells);
    this.model.set("seq", Math.max(this.model.get("seq"), this.model.get("ack")) + 1);
    this.save();
    this.waitForAnswer();
    this.redraw(false);
  }

  // One message for all that a click changes: the next one is held back until Python has dealt with this one.
  save() {
    queueMicrotask(() => this.model.save_changes());
  }

  waitForAnswer() {
    clearTimeout(this.patience);
    const late = () => {
      if (!this.pending()) return;
      this.banner.textContent = "Kernel busy or not connected: the dashed change has not reached Python.";
      this.banner.hidden = false;
    };
    if (this.connected()) this.patience = setTimeout(late, PATIENCE);
    else late();
  }

  answered() {
    if (!this.pending()) {
      clearTimeout(this.patience);
      this.banner.hidden = true;
    }
    this.redraw(false);
  }

  // ---------------------------------------------------------------- layout and drawing

  redraw(all) {
    this.stale = this.stale || all;
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw(this.stale));
  }

  draw(all) {
    if (all) {
      this.stale = false;
      this.read();
      this.layout();
      this.drawPicture();
    }
    this.drawMarks();
    this.describe();
  }

  read() {
    const [nRows, nCols] = this.model.get("shape");
    const bytes = this.model.get("data");
    const start = bytes.byteOffset || 0;
    this.values = new Float32Array((bytes.buffer || bytes).slice(start, start + bytes.byteLength)); // copied: aligned to 4
    Object.assign(this, { nRows, nCols });
    const style = getComputedStyle(this.root);
    const variable = (name, fallback) => style.getPropertyValue(name).trim() || fallback;
    this.ink = variable("--jp-ui-font-color0", "#000").replace(/rgba\((.*),[^,]*\)/, "rgb($1)");
    this.muted = variable("--jp-ui-font-color1", "#333");
    this.paper = variable("--jp-layout-color0", "#fff");
    this.brand = variable("--jp-brand-color1", "#1976d2");
    this.family = variable("--jp-ui-font-family", "system-ui, sans-serif");
    this.colors = ramp(document.body.dataset.jpThemeLight === "false" ? DARK : LIGHT);
    this.rowLabels = this.model.get("rows").map(cut);
    const marked = new Set(this.model.get("marked"));
    this.colLabels = this.model.get("cols").map((text, c) => (marked.has(c) ? `★${cut(text)}` : cut(text)));
  }

  layout() {
    const { nRows, nCols } = this;
    const ctx = this.picture.getContext("2d");
    const measure = (text, bold) => ((ctx.font = this.font(bold)), ctx.measureText(text).width);
    const marked = new Set(this.model.get("marked"));
    this.width = this.root.clientWidth;
    this.cellHeight = this.model.get("cell_height") || clamp(Math.floor(440 / nRows), 3, 22);
    this.rowStep = niceStep(FONT + 2, this.cellHeight);
    const rowWidth = Math.max(...every(this.rowLabels, this.rowStep).map(([text]) => measure(text)));
    const widths = this.colLabels.map((text, c) => measure(text, marked.has(c)));
    const longest = Math.max(...widths);
    const numbers = this.colLabels.every((text) => /^\D{0,2}\d+$/.test(text));
    this.left = Math.ceil(rowWidth + 10 + (this.model.get("row_title") ? FONT + 8 : 0));
    this.right = 14;
    // The margins depend on the labels, the labels on the width of a cell, the width of a cell on the margins: it settles quickly.
    for (let round = 0; round < 5; round++) {
      const room = (this.width || 800) - this.left - this.right - 4;
      const fits = clamp(room / nCols, 1, nCols === 1 ? 60 : 32);
      this.cellWidth = this.model.get("cell_width") || (fits > 4 ? Math.floor(fits) : fits);
      const across = niceStep(longest + 6, this.cellWidth);
      this.rotated = across > 1 && !numbers;
      this.colStep = this.rotated ? niceStep(FONT + 3, this.cellWidth) : across;
      for (const [, c] of every(this.colLabels, this.colStep)) {
        const middle = (c + 0.5) * this.cellWidth;
        const reach = this.rotated ? widths[c] * 0.5 + FONT : widths[c] / 2;
        this.left = Math.max(this.left, Math.ceil(reach - middle + 2));
        if (!this.rotated) this.right = Math.max(this.right, Math.ceil(middle + widths[c] / 2 - nCols * this.cellWidth + 4));
      }
    }
    const shown = every(widths, this.colStep).map(([width]) => width);
    this.labelHeight = this.rotated ? Math.ceil(Math.max(...shown) * SIN60 + FONT) : FONT + 4;
    this.top = BAR.zone;
    this.mapWidth = this.cellWidth * nCols;
    this.mapHeight = this.cellHeight * nRows;
    const unit = this.model.get("unit");
    const limit = formatNumber(this.model.get("limit"));
    const unitRoom = unit ? measure(unit) + 12 : 4;
    const least = Math.max(90, 2 * Math.ceil(measure(`-${limit}`)) + 24); // the numbers below it must not touch
    this.barWidth = Math.max(Math.floor(Math.min(BAR.width, this.mapWidth, (this.width || 800) - this.left - unitRoom - 4)), least);
    const barRoom = this.barWidth + unitRoom;
    const width = Math.ceil(this.left + Math.max(this.mapWidth + this.right, barRoom));
    const height = Math.ceil(this.top + this.mapHeight + 6 + this.labelHeight + (this.model.get("col_title") ? FONT + 8 : 4));
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.picture, this.marks]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    Object.assign(this.stage.style, { width: `${width}px`, height: `${height}px` });
    Object.assign(this.cells.style, { left: `${this.left}px`, top: `${this.top}px`, width: `${this.mapWidth}px`, height: `${this.mapHeight}px` });
  }

  font(bold) {
    return `${bold ? "bold " : ""}${FONT}px ${this.family}`;
  }

  drawPicture() {
    const ctx = this.picture.getContext("2d");
    const { left, top, mapWidth, mapHeight, cellWidth, cellHeight, nRows, nCols } = this;
    ctx.clearRect(0, 0, this.picture.width, this.picture.height);
    this.drawBar(ctx);
    // No value: hatched. Drawn below the map, which is transparent there.
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, mapWidth, mapHeight);
    ctx.clip();
    ctx.strokeStyle = this.muted;
    ctx.lineWidth = 1;
    if (this.values.some(Number.isNaN)) {
      ctx.beginPath();
      for (let x = left - mapHeight; x < left + mapWidth; x += 5) ctx.moveTo(x, top + mapHeight), ctx.lineTo(x + mapHeight, top);
      ctx.stroke();
    }
    ctx.restore();
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(this.image(), left, top, mapWidth, mapHeight);
    if (cellWidth >= 8 && cellHeight >= 8) {
      ctx.fillStyle = this.paper;
      for (let c = 1; c < nCols; c++) ctx.fillRect(left + c * cellWidth - 0.5, top, 1, mapHeight);
      for (let r = 1; r < nRows; r++) ctx.fillRect(left, top + r * cellHeight - 0.5, mapWidth, 1);
    }
    ctx.strokeStyle = this.muted;
    ctx.strokeRect(left - 0.5, top - 0.5, mapWidth + 1, mapHeight + 1);
    ctx.fillStyle = this.ink;
    for (const c of this.model.get("groups")) if (c > 0) ctx.fillRect(left + c * cellWidth - 1.5, top - 4, 3, mapHeight + 8);
    this.drawLabels(ctx);
  }

  // The values as an image of one pixel a cell.
  image() {
    const canvas = document.createElement("canvas");
    canvas.width = this.nCols;
    canvas.height = this.nRows;
    const ctx = canvas.getContext("2d");
    const image = ctx.createImageData(this.nCols, this.nRows);
    const limit = this.model.get("limit");
    this.values.forEach((value, i) => {
      if (!Number.isNaN(value)) image.data.set(this.colors(value / limit), i * 4);
    });
    ctx.putImageData(image, 0, 0);
    return canvas;
  }

  drawBar(ctx) {
    const x0 = this.left;
    const limit = this.model.get("limit");
    const unit = this.model.get("unit");
    for (let i = 0; i < this.barWidth; i++) {
      const [r, g, b] = this.colors((2 * i) / (this.barWidth - 1) - 1);
      ctx.fillStyle = `rgb(${r},${g},${b})`;
      ctx.fillRect(x0 + i, 4, 1, BAR.height);
    }
    ctx.strokeStyle = this.muted;
    ctx.lineWidth = 1;
    ctx.strokeRect(x0 - 0.5, 3.5, this.barWidth + 1, BAR.height + 1);
    ctx.fillStyle = this.muted;
    ctx.font = this.font(false);
    ctx.textBaseline = "top";
    for (const part of [0, 0.25, 0.5, 0.75, 1]) {
      const x = x0 + part * this.barWidth;
      ctx.fillRect(Math.min(x, x0 + this.barWidth - 0.5) - 0.5, 4 + BAR.height, 1, 4);
      if (part % 0.5) continue;
      const text = formatNumber((2 * part - 1) * limit);
      ctx.textAlign = part === 0 ? "left" : part === 1 ? "right" : "center";
      ctx.fillText(text, x, 19);
    }
    ctx.textAlign = "left";
    if (unit) ctx.fillText(unit, x0 + this.barWidth + 6, 19);
  }

  drawLabels(ctx) {
    const { left, top, cellWidth, cellHeight, mapHeight } = this;
    const marked = new Set(this.model.get("marked"));
    const bottom = top + mapHeight;
    ctx.font = this.font(false);
    ctx.fillStyle = this.muted;
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    for (const [text, r] of every(this.rowLabels, this.rowStep)) ctx.fillText(text, left - 5, top + (r + 0.5) * cellHeight);
    for (const [text, c] of every(this.colLabels, this.colStep)) {
      ctx.save();
      ctx.font = this.font(marked.has(c));
      ctx.fillStyle = marked.has(c) ? this.ink : this.muted;
      ctx.translate(left + (c + 0.5) * cellWidth, bottom + 6);
      if (this.rotated) {
        ctx.rotate(-Math.PI / 3);
        ctx.textAlign = "right";
        ctx.textBaseline = "middle";
      } else {
        ctx.textAlign = "center";
        ctx.textBaseline = "top";
      }
      ctx.fillText(text, 0, this.rotated ? 2 : 1);
      ctx.restore();
    }
    ctx.fillStyle = this.ink;
    for (const c of marked) ctx.fillRect(left + c * cellWidth, bottom + 1, Math.max(1, cellWidth - 1), 3);
    ctx.textAlign = "left";
    ctx.textBaseline = "bottom";
    ctx.fillText(this.model.get("col_title"), left, bottom + 6 + this.labelHeight + FONT + 6);
    ctx.translate(2, top + mapHeight / 2);
    ctx.rotate(-Math.PI / 2);
    ctx.textAlign = "center";
    ctx.textBaseline = "top";
    ctx.fillText(this.model.get("row_title"), 0, 0);
    ctx.rotate(Math.PI / 2);
    ctx.translate(-2, -(top + mapHeight / 2));
  }

  drawMarks() {
    const ctx = this.marks.getContext("2d");
    ctx.clearRect(0, 0, this.marks.width, this.marks.height);
    const { left, top, cellWidth, cellHeight } = this;
    const confirmed = this.asMask(this.model.get("selected"));
    const wanted = this.asMask(this.shown());
    const waiting = wanted.map((on, i) => (on !== confirmed[i] ? 1 : 0));
    const agreed = wanted.map((on, i) => on & confirmed[i]);
    const thick = Math.min(cellWidth, cellHeight) >= 7 ? 2 : 1;
    this.outline(ctx, agreed, thick, []);
    this.outline(ctx, waiting, thick, [3, 3]);
    this.dots(ctx, agreed, wanted, waiting);
    if (this.box) {
      const [r0, r1, c0, c1] = corners(this.box);
      const rect = [left + c0 * cellWidth, top + r0 * cellHeight, (c1 - c0 + 1) * cellWidth, (r1 - r0 + 1) * cellHeight];
      this.stroke(ctx, thick, [6, 3], (line) => line.rect(...rect));
    }
    const cursor = this.cursor();
    if (cursor) {
      const [r, c] = cursor;
      const grow = thick === 2 ? 0 : 2;
      ctx.setLineDash([]);
      const rect = [left + c * cellWidth - grow, top + r * cellHeight - grow, cellWidth + 2 * grow, cellHeight + 2 * grow];
      ctx.strokeStyle = this.paper;
      ctx.lineWidth = 5;
      ctx.strokeRect(...rect);
      ctx.strokeStyle = this.brand;
      ctx.lineWidth = 3;
      ctx.strokeRect(...rect);
      // Small triangles at the edges of the map lead to the cursor's row and column.
      ctx.fillStyle = this.brand;
      triangle(ctx, left + (c + 0.5) * cellWidth, top - 2, 0, -1);
      triangle(ctx, left + this.mapWidth + 2, top + (r + 0.5) * cellHeight, 1, 0);
    }
    this.waiting = waiting.reduce((sum, on) => sum + on, 0);
  }

  asMask(cells) {
    const mask = new Uint8Array(this.nRows * this.nCols);
    for (const [r, c] of cells) if (r < this.nRows && c < this.nCols) mask[r * this.nCols + c] = 1;
    return mask;
  }

  // The border of the marked region: every edge between a marked cell and one that is not.
  outline(ctx, mask, thick, dash) {
    const { left, top, cellWidth: w, cellHeight: h, nRows, nCols } = this;
    if (!mask.includes(1)) return;
    this.stroke(ctx, thick, dash, (line) => {
      for (let r = 0; r < nRows; r++) {
        for (let c = 0; c < nCols; c++) {
          const i = r * nCols + c;
          if (!mask[i]) continue;
          const x = left + c * w, y = top + r * h;
          if (r === 0 || !mask[i - nCols]) line.moveTo(x, y), line.lineTo(x + w, y);
          if (r === nRows - 1 || !mask[i + nCols]) line.moveTo(x, y + h), line.lineTo(x + w, y + h);
          if (c === 0 || !mask[i - 1]) line.moveTo(x, y), line.lineTo(x, y + h);
          if (c === nCols - 1 || !mask[i + 1]) line.moveTo(x + w, y), line.lineTo(x + w, y + h);
        }
      }
    });
  }

  // A dark line on a light one, or the other way round: visible on every colour.
  stroke(ctx, thick, dash, trace) {
    const line = new Path2D();
    trace(line);
    ctx.lineCap = dash.length ? "butt" : "square";
    ctx.setLineDash([]);
    ctx.strokeStyle = this.paper;
    ctx.lineWidth = thick + 2;
    ctx.stroke(line);
    ctx.setLineDash(dash);
    ctx.strokeStyle = this.ink;
    ctx.lineWidth = thick;
    ctx.stroke(line);
  }

  // A dot in the corner of a selected cell, a ring while Python has not answered.
  dots(ctx, agreed, wanted, waiting) {
    const small = Math.min(this.cellWidth, this.cellHeight);
    if (small < 7) return;
    const radius = clamp(small / 6, 1.5, 3);
    ctx.setLineDash([]);
    ctx.lineWidth = 1;
    for (let i = 0; i < wanted.length; i++) {
      if (!agreed[i] && !(waiting[i] && wanted[i])) continue;
      const x = this.left + ((i % this.nCols) + 1) * this.cellWidth - radius - 3;
      const y = this.top + Math.floor(i / this.nCols) * this.cellHeight + radius + 3;
      ctx.beginPath();
      ctx.arc(x, y, radius + 1, 0, 2 * Math.PI);
      ctx.fillStyle = this.paper;
      ctx.fill();
      ctx.beginPath();
      ctx.arc(x, y, radius, 0, 2 * Math.PI);
      ctx.fillStyle = ctx.strokeStyle = this.ink;
      if (agreed[i]) ctx.fill();
      else ctx.stroke();
    }
  }

  // What the picture shows, for screen readers and below the map.
  describe() {
    const count = this.shown().length;
    const kind = this.model.get("kind");
    const disabled = this.model.get("disabled") || !this.model.get("selectable");
    let text = disabled && !count ? "" : `${count} ${kind}${count === 1 ? "" : "s"} selected`;
    if (this.box) {
      const [r0, r1, c0, c1] = corners(this.box);
      text += ` · box of ${r1 - r0 + 1} × ${c1 - c0 + 1}` + (this.box.remove ? " to remove" : "");
    }
    if (this.waiting) text += ` · ${this.waiting} waiting for Python`;
    if (this.values.some(Number.isNaN)) text += " · hatched: no value";
    if (this.status.textContent !== text) this.status.textContent = text;
    const cursor = this.cursor() || [0, 0];
    const [r, c] = cursor;
    const set = (node, name, value) => node.setAttribute(name, String(value));
    set(this.cells, "aria-rowcount", this.nRows);
    set(this.cells, "aria-colcount", this.nCols);
    set(this.cells, "aria-readonly", disabled);
    set(this.cells, "aria-activedescendant", this.cell.id);
    set(this.row, "aria-rowindex", r + 1);
    set(this.cell, "aria-colindex", c + 1);
    set(this.cell, "aria-selected", this.shown().some(([a, b]) => a === r && b === c));
    const spoken = `${this.nameOf(r, c)}: ${this.valueOf(r, c)}`;
    if (this.cell.textContent !== spoken) this.cell.textContent = spoken;
  }

  nameOf(r, c) {
    const given = this.model.get("descriptions");
    if (given.length) return given[r][c];
    const part = (title, label) => (title ? `${title} ${label}` : label);
    return `${part(this.model.get("row_title"), this.model.get("rows")[r])}, ${part(this.model.get("col_title"), this.model.get("cols")[c])}`;
  }

  valueOf(r, c) {
    const value = this.values[r * this.nCols + c];
    const unit = this.model.get("unit");
    return Number.isNaN(value) ? "no value" : formatNumber(value) + (unit ? ` ${unit}` : "");
  }

  // ---------------------------------------------------------------- pointer

  cellAt(event) {
    const area = this.cells.getBoundingClientRect();
    const c = Math.floor((event.clientX - area.left) / this.cellWidth);
    const r = Math.floor((event.clientY - area.top) / this.cellHeight);
    return { cell: [clamp(r, 0, this.nRows - 1), clamp(c, 0, this.nCols - 1)], inside: r >= 0 && c >= 0 && r < this.nRows && c < this.nCols };
  }

  pointerDown(event) {
    if (event.button !== 0) return;
    event.preventDefault(); // no text selection while dragging
    this.cells.focus({ preventScroll: true });
    const { cell } = this.cellAt(event);
    this.box = null;
    if (event.shiftKey && this.pickable()) {
      this.cells.setPointerCapture(event.pointerId);
      this.box = { from: cell, to: cell, remove: event.altKey, pointer: event.pointerId };
    } else this.press = cell;
    this.redraw(false);
  }

  pointerMove(event) {
    const { cell, inside } = this.cellAt(event);
    if (this.box && this.box.pointer === event.pointerId) {
      if (!same(this.box.to, cell)) {
        this.box.to = cell;
        this.redraw(false);
      }
      return;
    }
    this.setHover(inside ? cell : null);
  }

  pointerUp(event) {
    const { cell, inside } = this.cellAt(event);
    if (this.box && this.box.pointer === event.pointerId) {
      this.setCursor(this.box.to);
      this.takeBox(this.box.remove);
    } else if (this.press && inside && same(this.press, cell)) {
      this.setCursor(cell);
      this.toggle(cell);
    }
    this.press = null;
  }

  pointerCancel() {
    this.press = this.box = null;
    this.redraw(false);
  }

  // ---------------------------------------------------------------- keyboard

  keyDown(event) {
    const [r, c] = this.cursor() || [0, 0];
    const page = Math.max(1, Math.floor(this.nRows / 5));
    const moves = {
      ArrowUp: [r - 1, c],
      ArrowDown: [r + 1, c],
      ArrowLeft: [r, c - 1],
      ArrowRight: [r, c + 1],
      PageUp: [r - page, c],
      PageDown: [r + page, c],
      Home: event.ctrlKey || event.metaKey ? [0, 0] : [r, 0],
      End: event.ctrlKey || event.metaKey ? [this.nRows - 1, this.nCols - 1] : [r, this.nCols - 1],
    };
    if (event.key in moves) {
      const to = [clamp(moves[event.key][0], 0, this.nRows - 1), clamp(moves[event.key][1], 0, this.nCols - 1)];
      if (event.shiftKey && this.pickable()) this.box = { from: this.box ? this.box.from : [r, c], to, remove: false };
      else this.box = null;
      this.setCursor(to);
      this.setHover(to);
    } else if (event.key === " " || event.key === "Enter") {
      if (event.key === "Enter" && (event.shiftKey || event.ctrlKey || event.metaKey)) return; // runs the notebook's cell
      if (this.box) this.takeBox(false);
      else {
        this.setCursor([r, c]);
        this.toggle([r, c]);
      }
    } else if (event.key === "Delete" || event.key === "Backspace") {
      if (!this.pickable()) return;
      this.box = this.box || { from: [r, c], to: [r, c] };
      this.takeBox(true);
    } else if (event.key === "Escape") {
      if (this.box) this.box = null;
      else this.setHover(null);
      this.redraw(false);
    } else if (event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey)) {
      if (this.pickable()) this.pick(Uint8Array.from(this.values, (value) => (Number.isNaN(value) ? 0 : 1)));
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // ---------------------------------------------------------------- actions

  pickable() {
    return this.model.get("selectable") && !this.model.get("disabled");
  }

  // A cell without a value cannot be added, but Python may have selected it, and then it can be removed.
  toggle([r, c]) {
    if (!this.pickable()) return;
    const mask = this.asMask(this.shown());
    const i = r * this.nCols + c;
    if (!mask[i] && Number.isNaN(this.values[i])) return;
    mask[i] ^= 1;
    this.pick(mask);
  }

  takeBox(remove) {
    const [r0, r1, c0, c1] = corners(this.box);
    this.box = null;
    const before = this.asMask(this.shown());
    const mask = before.slice();
    for (let r = r0; r <= r1; r++) {
      for (let c = c0; c <= c1; c++) {
        const i = r * this.nCols + c;
        if (remove) mask[i] = 0;
        else if (!Number.isNaN(this.values[i])) mask[i] = 1;
      }
    }
    if (mask.some((on, i) => on !== before[i])) this.pick(mask);
    this.redraw(false);
  }

  cursor() {
    const cursor = this.model.get("cursor");
    return cursor && cursor[0] < this.nRows && cursor[1] < this.nCols ? cursor : null;
  }

  setCursor(cell) {
    if (same(this.cursor(), cell)) return this.redraw(false);
    this.model.set("cursor", cell);
    this.save();
  }

  setHover(cell) {
    if (same(this.hovered, cell)) return;
    this.hovered = cell;
    this.fillTip();
    clearTimeout(this.hoverTimer);
    const send = () => {
      this.lastHover = performance.now();
      this.model.set("hover", cell);
      this.save();
    };
    const wait = this.lastHover + HOVER_EVERY - performance.now();
    if (wait <= 0) send();
    else this.hoverTimer = setTimeout(send, wait);
  }

  // ---------------------------------------------------------------- tooltip

  fillTip() {
    const cell = this.hovered;
    if (!cell) {
      if (this.tip.hidePopover && this.tip.matches(":popover-open")) this.tip.hidePopover();
      this.tip.hidden = true;
      return;
    }
    const [r, c] = cell;
    this.tip.replaceChildren();
    this.make(this.tip, "div", "hg-tip-name").textContent = this.nameOf(r, c);
    this.make(this.tip, "div", "hg-tip-value").textContent = this.valueOf(r, c);
    if (same(this.model.get("tip_for"), cell)) {
      if (this.model.get("tip")) this.make(this.tip, "div", "hg-tip-text").textContent = this.model.get("tip");
      this.fillPattern(this.model.get("pattern"));
    }
    this.tip.hidden = false;
    if (this.tip.showPopover && this.tip.isConnected && !this.tip.matches(":popover-open")) this.tip.showPopover();
    const area = this.cells.getBoundingClientRect();
    const x = area.left + (c + 1) * this.cellWidth + 10;
    const y = area.top + (r + 1) * this.cellHeight + 10;
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const left = x + width > window.innerWidth ? area.left + c * this.cellWidth - width - 10 : x;
    const top = y + height > window.innerHeight ? area.top + r * this.cellHeight - height - 10 : y;
    this.tip.style.left = `${Math.max(0, left)}px`;
    this.tip.style.top = `${Math.max(0, top)}px`;
  }

  // The tokens that get the most attention, in the prompt's order. Of several queries, the last.
  fillPattern(pattern) {
    if (!pattern || !pattern.tokens || !pattern.weights || !pattern.weights.length) return;
    const weights = Array.isArray(pattern.weights[0]) ? pattern.weights[pattern.weights.length - 1] : pattern.weights;
    const order = weights.map((_, i) => i).sort((a, b) => weights[b] - weights[a]).slice(0, 12).sort((a, b) => a - b);
    const most = Math.max(...weights, 1e-12);
    const bars = this.make(this.tip, "div", "hg-bars");
    for (const i of order) {
      this.make(bars, "span").textContent = cut(String(pattern.tokens[i]));
      this.make(bars, "div", "hg-bar").style.width = `${(90 * weights[i]) / most}px`;
      this.make(bars, "span").textContent = weights[i].toFixed(2);
    }
    const others = weights.length - order.length;
    if (others > 0) this.make(this.tip, "div").textContent = `and ${others} tokens with less`;
  }
}

// ------------------------------------------------------------------ small pieces

// A function from -1..1 to the four bytes of a colour.
function ramp(colors) {
  const stops = colors.map((color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
  return (value) => {
    const at = ((clamp(value, -1, 1) + 1) / 2) * (stops.length - 1);
    const below = Math.min(Math.floor(at), stops.length - 2);
    const part = at - below;
    return [0, 1, 2].map((i) => Math.round(stops[below][i] * (1 - part) + stops[below + 1][i] * part)).concat(255);
  };
}

// Every n-th label so that they do not touch: 1, 2, 5, 10, 20 ...
function niceStep(needed, size) {
  let step = 1;
  while (step * size < needed) step *= String(step)[0] === "2" ? 2.5 : 2;
  return step;
}

function every(list, step) {
  return list.map((item, i) => [item, i]).filter(([, i]) => i % step === 0);
}

function corners({ from, to }) {
  return [Math.min(from[0], to[0]), Math.max(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[1], to[1])];
}

function triangle(ctx, x, y, dx, dy) {
  ctx.beginPath();
  ctx.moveTo(x, y);
  ctx.lineTo(x + 6 * dx - 4 * dy, y + 6 * dy - 4 * dx);
  ctx.lineTo(x + 6 * dx + 4 * dy, y + 6 * dy + 4 * dx);
  ctx.fill();
}

// Three significant digits.
function formatNumber(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return value.toExponential(2);
  return size >= 1000 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

function cut(text) {
  return text.length <= LONGEST ? text : `${text.slice(0, LONGEST - 1)}…`;
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

function same(a, b) {
  return a === b || (Array.isArray(a) && Array.isArray(b) && a[0] === b[0] && a[1] === b[1]);
}
