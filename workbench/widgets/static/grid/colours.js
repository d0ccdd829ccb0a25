// The colour of a value, and the colours of the page around the map. The scales themselves are in plots/colours.py.

import { clamp } from "./cells.js";

// A function from a value, in units of the limit, to the four bytes of a colour. `low` is what the first stop stands for.
export function ramp(colors, low) {
  const stops = colors.map((color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
  return (value) => {
    const at = ((clamp(value, low, 1) - low) / (1 - low)) * (stops.length - 1);
    const below = Math.min(Math.floor(at), stops.length - 2);
    const part = at - below;
    return [0, 1, 2].map((i) => Math.round(stops[below][i] * (1 - part) + stops[below + 1][i] * part)).concat(255);
  };
}

// What is drawn with, from the page's theme and the map's scale.
export function readTheme(root, model) {
  const style = getComputedStyle(root);
  const variable = (name, fallback) => style.getPropertyValue(name).trim() || fallback;
  const { low, light, dark } = model.get("colours");
  return {
    ink: variable("--jp-ui-font-color0", "#000").replace(/rgba\((.*),[^,]*\)/, "rgb($1)"),
    muted: variable("--jp-ui-font-color1", "#333"),
    paper: variable("--jp-layout-color0", "#fff"),
    brand: variable("--jp-brand-color1", "#1976d2"),
    family: variable("--jp-ui-font-family", "system-ui, sans-serif"),
    low,
    colorOf: ramp(document.body.dataset.jpThemeLight === "false" ? dark : light, low),
  };
}
