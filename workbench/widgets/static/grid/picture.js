// The lower canvas: the values as colours, the labels and the colour bar.

import { BAR, FONT, every, font } from "./layout.js";
import { formatNumber } from "./words.js";

export function drawPicture(canvas, data, layout, theme) {
  const ctx = canvas.getContext("2d");
  const { left, top, mapWidth, mapHeight, cellWidth, cellHeight } = layout;
  ctx.clearRect(0, 0, canvas.width, canvas.height);
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
  ctx.fillStyle = theme.ink;
  for (const c of data.groups) if (c > 0) ctx.fillRect(left + c * cellWidth - 1.5, top - 4, 3, mapHeight + 8);
  drawLabels(ctx, data, layout, theme);
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
function imageOf({ values, nRows, nCols, limit }, theme) {
  const canvas = document.createElement("canvas");
  canvas.width = nCols;
  canvas.height = nRows;
  const ctx = canvas.getContext("2d");
  const image = ctx.createImageData(nCols, nRows);
  values.forEach((value, i) => {
    if (!Number.isNaN(value)) image.data.set(theme.colorOf(value / limit), i * 4);
  });
  ctx.putImageData(image, 0, 0);
  return canvas;
}

function drawBar(ctx, { limit, unit }, { left, barWidth }, theme) {
  const valueAt = (part) => theme.low + part * (1 - theme.low); // of 0 to 1 along the bar, in units of the limit
  for (let i = 0; i < barWidth; i++) {
    const [r, g, b] = theme.colorOf(valueAt(i / (barWidth - 1)));
    ctx.fillStyle = `rgb(${r},${g},${b})`;
    ctx.fillRect(left + i, 4, 1, BAR.height);
  }
  ctx.strokeStyle = theme.muted;
  ctx.lineWidth = 1;
  ctx.strokeRect(left - 0.5, 3.5, barWidth + 1, BAR.height + 1);
  ctx.fillStyle = theme.muted;
  ctx.font = font(theme, false);
  ctx.textBaseline = "top";
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    const x = left + part * barWidth;
    ctx.fillRect(Math.min(x, left + barWidth - 0.5) - 0.5, 4 + BAR.height, 1, 4);
    if (part % 0.5) continue;
    ctx.textAlign = part === 0 ? "left" : part === 1 ? "right" : "center";
    ctx.fillText(formatNumber(valueAt(part) * limit), x, 19);
  }
  ctx.textAlign = "left";
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
  ctx.fillText(data.colTitle, left, bottom + 6 + layout.labelHeight + FONT + 6);
  ctx.translate(2, top + mapHeight / 2);
  ctx.rotate(-Math.PI / 2);
  ctx.textAlign = "center";
  ctx.textBaseline = "top";
  ctx.fillText(data.rowTitle, 0, 0);
  ctx.rotate(Math.PI / 2);
  ctx.translate(-2, -(top + mapHeight / 2));
}
