// The upper canvas: what is selected, what waits for Python's answer, the box in progress and the cursor.

import { clamp, corners, maskOf } from "./cells.js";

// Returns how many cells wait for Python. `wanted` is `selected` with the browser's own change, if one is pending.
export function drawMarks(canvas, data, layout, theme, { selected, wanted, box, cursor, pinned, focused, dots }) {
  const ctx = canvas.getContext("2d");
  ctx.clearRect(0, 0, canvas.width, canvas.height);
  const confirmed = maskOf(selected, data);
  const asked = maskOf(wanted, data);
  const waiting = asked.map((on, i) => (on !== confirmed[i] ? 1 : 0));
  const agreed = asked.map((on, i) => on & confirmed[i]);
  const thick = Math.min(layout.cellWidth, layout.cellHeight) >= 7 ? 2 : 1;
  drawOutline(ctx, agreed, data, layout, theme, thick, []);
  drawOutline(ctx, waiting, data, layout, theme, thick, [3, 3]);
  if (dots) drawDots(ctx, { agreed, asked, waiting }, data, layout, theme);
  if (box) drawBox(ctx, box, layout, theme, thick);
  if (cursor && focused) drawCursor(ctx, cursor, layout, theme, thick === 2 ? 0 : 2);
  else if (cursor) drawTick(ctx, cursor, layout, theme);
  for (const cell of pinned) drawPin(ctx, cell, layout, theme);
  return waiting.reduce((sum, on) => sum + on, 0);
}

// A flag in the upper left corner of a cell whose details are shown elsewhere.
function drawPin(ctx, [r, c], { left, top, cellWidth, cellHeight }, theme) {
  const x = left + c * cellWidth, y = top + r * cellHeight;
  const size = clamp(Math.min(cellWidth, cellHeight) * 0.6, 4, 10);
  ctx.setLineDash([]);
  ctx.beginPath();
  ctx.moveTo(x, y);
  ctx.lineTo(x + size, y);
  ctx.lineTo(x, y + size);
  ctx.closePath();
  ctx.fillStyle = theme.brand;
  ctx.fill();
  ctx.strokeStyle = theme.paper;
  ctx.lineWidth = 1;
  ctx.stroke();
}

// The cursor of a map that is not in use: where its row is, at the map's edge, not in it. A box would read as a selection.
function drawTick(ctx, [r], { left, top, cellHeight, mapWidth }, theme) {
  ctx.fillStyle = theme.line;
  drawTriangle(ctx, left + mapWidth + 2, top + (r + 0.5) * cellHeight, 1, 0);
}

// The border of the marked region: every edge between a marked cell and one that is not.
function drawOutline(ctx, mask, { nRows, nCols }, { left, top, cellWidth: w, cellHeight: h }, theme, thick, dash) {
  if (!mask.includes(1)) return;
  stroke(ctx, theme, thick, dash, (line) => {
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
function stroke(ctx, theme, thick, dash, trace) {
  const line = new Path2D();
  trace(line);
  ctx.lineCap = dash.length ? "butt" : "square";
  ctx.setLineDash([]);
  ctx.strokeStyle = theme.paper;
  ctx.lineWidth = thick + 2;
  ctx.stroke(line);
  ctx.setLineDash(dash);
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = thick;
  ctx.stroke(line);
}

// A dot in the corner of a selected cell, a ring while Python has not answered.
function drawDots(ctx, { agreed, asked, waiting }, { nCols }, { left, top, cellWidth, cellHeight }, theme) {
  const small = Math.min(cellWidth, cellHeight);
  if (small < 7) return;
  const radius = clamp(small / 5, 1.5, 4);
  ctx.setLineDash([]);
  ctx.lineWidth = 1;
  for (let i = 0; i < asked.length; i++) {
    if (!agreed[i] && !(waiting[i] && asked[i])) continue;
    const x = left + ((i % nCols) + 1) * cellWidth - radius - 3;
    const y = top + Math.floor(i / nCols) * cellHeight + radius + 3;
    ctx.beginPath();
    ctx.arc(x, y, radius + 1, 0, 2 * Math.PI);
    ctx.fillStyle = theme.paper;
    ctx.fill();
    ctx.beginPath();
    ctx.arc(x, y, radius, 0, 2 * Math.PI);
    ctx.fillStyle = ctx.strokeStyle = theme.ink;
    if (agreed[i]) ctx.fill();
    else ctx.stroke();
  }
}

function drawBox(ctx, box, { left, top, cellWidth, cellHeight }, theme, thick) {
  const [r0, r1, c0, c1] = corners(box);
  const rect = [left + c0 * cellWidth, top + r0 * cellHeight, (c1 - c0 + 1) * cellWidth, (r1 - r0 + 1) * cellHeight];
  stroke(ctx, theme, thick, [6, 3], (line) => line.rect(...rect));
}

function drawCursor(ctx, [r, c], { left, top, cellWidth, cellHeight, mapWidth }, theme, grow) {
  ctx.setLineDash([]);
  const rect = [left + c * cellWidth - grow, top + r * cellHeight - grow, cellWidth + 2 * grow, cellHeight + 2 * grow];
  ctx.strokeStyle = theme.paper;
  ctx.lineWidth = 5;
  ctx.strokeRect(...rect);
  ctx.strokeStyle = theme.brand;
  ctx.lineWidth = 3;
  ctx.strokeRect(...rect);
  // Small triangles at the edges of the map lead to the cursor's row and column.
  ctx.fillStyle = theme.brand;
  drawTriangle(ctx, left + (c + 0.5) * cellWidth, top - 2, 0, -1);
  drawTriangle(ctx, left + mapWidth + 2, top + (r + 0.5) * cellHeight, 1, 0);
}

function drawTriangle(ctx, x, y, dx, dy) {
  ctx.beginPath();
  ctx.moveTo(x, y);
  ctx.lineTo(x + 6 * dx - 4 * dy, y + 6 * dy - 4 * dx);
  ctx.lineTo(x + 6 * dx + 4 * dy, y + 6 * dy + 4 * dx);
  ctx.fill();
}
