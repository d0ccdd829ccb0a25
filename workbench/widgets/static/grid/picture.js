// The lower canvas: the values as colours, the labels and the colour bar.

import { BAR, FONT, GROUP_ZONE, every, font } from "./layout.js";
import { inkOn } from "./colours.js";
import { cutTo, formatNumber, isolate } from "./words.js";

export function drawPicture(canvas, data, layout, theme) {
  const ctx = canvas.getContext("2d");
  const { left, top, mapWidth, mapHeight, cellWidth, cellHeight } = layout;
  ctx.clearRect(0, 0, canvas.width, canvas.height);
  ctx.direction = "ltr"; // labels are isolated, see words.js
  drawBar(ctx, data, layout, theme);
  drawHatching(ctx, data, layout, theme); // below the map, which is transparent where there is no value
  ctx.imageSmoothingEnabled = false;
  ctx.drawImage(imageOf(data, theme), left, top, mapWidth, mapHeight);
  if (cellWidth >= 8 && cellHeight >= 8) {
    ctx.fillStyle = theme.paper;
    for (let c = 1; c < data.nCols; c++) ctx.fillRect(left + c * cellWidth - 0.5, top, 1, mapHeight);
    for (let r = 1; r < data.nRows; r++) ctx.fillRect(left, top + r * cellHeight - 0.5, mapWidth, 1);
  }
  ctx.strokeStyle = theme.muted;
  ctx.strokeRect(left - 0.5, top - 0.5, mapWidth + 1, mapHeight + 1);
  if (data.words.length) drawWords(ctx, data, layout, theme);
  drawGroups(ctx, data, layout, theme);
  drawLabels(ctx, data, layout, theme);
}

// Thin lines between groups of columns, and their names above where there is room.
function drawGroups(ctx, { groups, groupName, nCols }, { left, top, cellWidth, mapHeight }, theme) {
  ctx.font = `${FONT - 1}px ${theme.family}`;
  ctx.textAlign = "center";
  ctx.textBaseline = "bottom";
  const names = groups.map((_, i) => `${groupName}${i}`);
  const widths = groups.map((first, i) => ((groups[i + 1] || nCols) - first) * cellWidth);
  const named = groupName && names.every((name, i) => ctx.measureText(name).width + 6 <= widths[i]);
  groups.forEach((first, i) => {
    const x = left + first * cellWidth;
    if (first > 0) {
      ctx.fillStyle = theme.paper;
      ctx.fillRect(x - 1.5, top, 3, mapHeight);
      ctx.fillStyle = theme.line;
      ctx.fillRect(Math.round(x) - 0.5, top - (named ? GROUP_ZONE : 3), 1, mapHeight + (named ? GROUP_ZONE : 3));
    }
    ctx.fillStyle = theme.muted;
    if (named) ctx.fillText(names[i], x + widths[i] / 2, top - 1);
  });
}

function drawHatching(ctx, { values }, { left, top, mapWidth, mapHeight }, theme) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, mapWidth, mapHeight);
  ctx.clip();
  ctx.strokeStyle = theme.muted;
  ctx.lineWidth = 1;
  if (values.some(Number.isNaN)) {
    ctx.beginPath();
    for (let x = left - mapHeight; x < left + mapWidth; x += 5) ctx.moveTo(x, top + mapHeight), ctx.lineTo(x + mapHeight, top);
    ctx.stroke();
  }
  ctx.restore();
}

// The values as an image of one pixel a cell.
function imageOf({ values, nRows, nCols, axis }, theme) {
  const canvas = document.createElement("canvas");
  canvas.width = nCols;
  canvas.height = nRows;
  const ctx = canvas.getContext("2d");
  const image = ctx.createImageData(nCols, nRows);
  values.forEach((value, i) => {
    if (!Number.isNaN(value)) image.data.set(theme.colorOf(axis.place(value)), i * 4);
  });
  ctx.putImageData(image, 0, 0);
  return canvas;
}

// A word in each cell, cut where it has no room; black or white, whichever stands out more from the cell's colour.
function drawWords(ctx, { words, values, nCols, axis }, { left, top, cellWidth, cellHeight }, theme) {
  ctx.font = `${Math.min(FONT, cellHeight - 4)}px ${theme.family}`;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  values.forEach((value, i) => {
    if (Number.isNaN(value)) return;
    const r = Math.floor(i / nCols), c = i % nCols;
    ctx.fillStyle = inkOn(theme.colorOf(axis.place(value)));
    const word = cutTo(words[r][c], (text) => ctx.measureText(text).width <= cellWidth - 5);
    ctx.fillText(isolate(word), left + (c + 0.5) * cellWidth, top + (r + 0.5) * cellHeight + 0.5);
  });
}

function drawBar(ctx, { axis }, { left, barWidth, unit }, theme) {
  for (let i = 0; i < barWidth; i++) {
    const [r, g, b] = theme.colorOf(theme.low + (i / (barWidth - 1)) * (1 - theme.low));
    ctx.fillStyle = `rgb(${r},${g},${b})`;
    ctx.fillRect(left + i, 4, 1, BAR.height);
  }
  ctx.strokeStyle = theme.muted;
  ctx.lineWidth = 1;
  ctx.strokeRect(left - 0.5, 3.5, barWidth + 1, BAR.height + 1);
  ctx.fillStyle = theme.muted;
  ctx.font = font(theme, false);
  ctx.textBaseline = "top";
  const ticks = axis.ticks.map(([place, value]) => ({ at: ((place - theme.low) / (1 - theme.low)) * barWidth, value }));
  for (const { at } of ticks) ctx.fillRect(left + Math.min(at, barWidth - 0.5) - 0.5, 4 + BAR.height, 1, 4);
  const last = ticks.length - 1;
  const places = ticks.map(({ at, value }, i) => {
    const text = (axis.cut && (i === 0 || i === last) && value !== 0 ? (value < 0 ? "≤" : "≥") : "") + formatNumber(value);
    const width = ctx.measureText(text).width;
    return { text, width, x: i === 0 ? at : i === last ? at - width : at - width / 2, keep: i === 0 || i === last || value === 0 };
  });
  // Ends and zero first; others where they touch none.
  const written = places.filter(({ keep }) => keep);
  const free = (one) => written.every((other) => one.x + one.width + 4 <= other.x || other.x + other.width + 4 <= one.x);
  for (const one of places) if (!one.keep && free(one)) written.push(one);
  ctx.textAlign = "left";
  for (const { text, x } of written) ctx.fillText(text, left + x, 19);
  if (unit) ctx.fillText(unit, left + barWidth + 6, 19);
}

function drawLabels(ctx, data, layout, theme) {
  const { left, top, cellWidth, cellHeight, mapHeight } = layout;
  const bottom = top + mapHeight;
  ctx.font = font(theme, false);
  ctx.fillStyle = theme.muted;
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  for (const [text, r] of every(data.rowLabels, layout.rowStep)) ctx.fillText(text, left - 5, top + (r + 0.5) * cellHeight);
  for (const [text, c] of every(data.colLabels, layout.colStep)) {
    ctx.save();
    ctx.font = font(theme, data.marked.has(c));
    ctx.fillStyle = data.marked.has(c) ? theme.ink : theme.muted;
    ctx.translate(left + (c + 0.5) * cellWidth, bottom + 6);
    if (layout.rotated) {
      ctx.rotate(-Math.PI / 3);
      ctx.textAlign = "right";
      ctx.textBaseline = "middle";
    } else {
      ctx.textAlign = "center";
      ctx.textBaseline = "top";
    }
    ctx.fillText(text, 0, layout.rotated ? 2 : 1);
    ctx.restore();
  }
  ctx.fillStyle = theme.ink;
  for (const c of data.marked) ctx.fillRect(left + c * cellWidth, bottom + 1, Math.max(1, cellWidth - 1), 3);
  ctx.textAlign = "left";
  ctx.textBaseline = "bottom";
  ctx.fillText(isolate(data.colTitle), left, bottom + 6 + layout.labelHeight + FONT + 6);
  ctx.translate(2, top + mapHeight / 2);
  ctx.rotate(-Math.PI / 2);
  ctx.textAlign = "center";
  ctx.textBaseline = "top";
  ctx.fillText(isolate(data.rowTitle), 0, 0);
  ctx.rotate(Math.PI / 2);
  ctx.translate(-2, -(top + mapHeight / 2));
}
