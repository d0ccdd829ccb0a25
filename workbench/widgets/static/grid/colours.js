// Where a value lies on the colours, the colour there, and the colours of the page around the map. The scales and their
// three modes are those of plots/colours.py.

import { pageIsDark, labIsDark } from "../theme.js";
import { clamp } from "./cells.js";

// A function from a place, as `axisOf` gives it, to the four bytes of a colour. `low` is what the first stop stands for.
export function ramp(colors, low) {
  const stops = colors.map((color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
  return (value) => {
    const at = ((clamp(value, low, 1) - low) / (1 - low)) * (stops.length - 1);
    const below = Math.min(Math.floor(at), stops.length - 2);
    const part = at - below;
    return [0, 1, 2].map((i) => Math.round(stops[below][i] * (1 - part) + stops[below + 1][i] * part)).concat(255);
  };
}

const KNEE = 1 / 30; // a symmetric log is linear up to this part of the limit

// 1, 2 or 5 times a power of ten: the one at the smallest ratio.
function roundNumber(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const ratio = (near) => Math.abs(Math.log(near / value));
  return [1, 2, 5, 10].map((digit) => digit * power).reduce((a, b) => (ratio(b) < ratio(a) ? b : a));
}

// `place(value)` is -1 to 1; `ticks` are [place, value] of the colour bar's numbers; `cut`: the end's colour also stands
// for what is beyond it.
export function axisOf({ mode, limit, clip }, low) {
  const end = mode === "clip" && clip ? clip : limit;
  const bend = (scaled) => (Math.sign(scaled) * Math.log1p(Math.abs(scaled) / KNEE)) / Math.log1p(1 / KNEE);
  const place = (value) => (mode === "symlog" ? bend(clamp(value / end, -1, 1)) : clamp(value / end, -1, 1));
  const inner = roundNumber(end * KNEE * Math.expm1(Math.log1p(1 / KNEE) / 2)); // near the middle of an arm
  let values = [low * end, ((1 + low) / 2) * end, end];
  if (mode === "symlog") values = low < 0 ? [-end, -inner, 0, inner, end] : [0, inner, end];
  return { place, end, cut: end < limit, ticks: values.map((value) => [place(value), value]) };
}

// Black or white, whichever has more contrast (WCAG) on a colour.
export function inkOn([r, g, b]) {
  const linear = [r, g, b].map((byte) => (byte / 255 <= 0.04045 ? byte / 255 / 12.92 : ((byte / 255 + 0.055) / 1.055) ** 2.4));
  const light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return (light + 0.05) / 0.05 > 1.05 / (light + 0.05) ? "#000" : "#fff";
}

// What is drawn with, from the page's theme and the map's scale.
export function readTheme(root, model) {
  const { low, light, dark } = model.get("colours");
  const night = pageIsDark();
  const own = night && labIsDark() === null; // a dark page without JupyterLab's colours, see grid.css
  const style = getComputedStyle(root);
  const variable = (name, fallback, inDark) => (own ? inDark : style.getPropertyValue(name).trim() || fallback);
  return {
    ink: variable("--jp-ui-font-color0", "#000", "#fff").replace(/rgba\((.*),[^,]*\)/, "rgb($1)"),
    muted: variable("--jp-ui-font-color1", "#333", "#d0d0d0"),
    line: variable("--jp-ui-font-color2", "#767676", "#8f8f8f"),
    paper: variable("--jp-layout-color0", "#fff", "#1e1e1e"),
    brand: variable("--jp-brand-color1", "#1976d2", "#64b5f6"),
    family: variable("--jp-ui-font-family", "system-ui, sans-serif", "system-ui, sans-serif"),
    low,
    colorOf: ramp(night ? dark : light, low),
  };
}
