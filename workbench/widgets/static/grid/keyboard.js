// Everything that a pointer can do, by keyboard. What is not a map's key is left to the page.

import { clamp } from "./cells.js";

// Where a key leads from a cell; undefined for keys that lead nowhere.
function destination(event, [r, c], { nRows, nCols }) {
  const page = Math.max(1, Math.floor(nRows / 5));
  const far = event.ctrlKey || event.metaKey;
  const moves = {
    ArrowUp: [r - 1, c],
    ArrowDown: [r + 1, c],
    ArrowLeft: [r, c - 1],
    ArrowRight: [r, c + 1],
    PageUp: [r - page, c],
    PageDown: [r + page, c],
    Home: far ? [0, 0] : [r, 0],
    End: far ? [nRows - 1, nCols - 1] : [r, nCols - 1],
  };
  if (!(event.key in moves)) return undefined;
  const [row, column] = moves[event.key];
  return [clamp(row, 0, nRows - 1), clamp(column, 0, nCols - 1)];
}

export function handleKey(event, actions, tooltip, redraw) {
  const from = actions.cursor() || [0, 0];
  const to = destination(event, from, actions.size());
  const command = event.ctrlKey || event.metaKey;
  const letter = event.key.toLowerCase();
  if (to) {
    if (event.shiftKey && actions.picks.pickable()) actions.box = { from: actions.box ? actions.box.from : from, to, remove: false };
    else actions.box = null;
    actions.setCursor(to);
    tooltip.show(to);
  } else if (event.key === " " || event.key === "Enter") {
    if (event.key === "Enter" && (event.shiftKey || command)) return; // runs the notebook's cell
    if (actions.box) actions.takeBox(false);
    else {
      actions.setCursor(from);
      actions.toggle(from);
    }
  } else if (event.key === "Delete" || event.key === "Backspace") {
    if (!actions.picks.pickable()) return;
    actions.box = actions.box || { from, to: from };
    actions.takeBox(true);
  } else if (event.key === "Escape") {
    if (actions.box) actions.box = null;
    else tooltip.show(null);
    redraw();
  } else if (letter === "a" && command) {
    if (actions.picks.pickable()) actions.takeAll();
  } else if ((letter === "z" || letter === "y") && command) {
    actions.takeBack(letter === "y" || event.shiftKey); // also where nobody listens: the notebook's undo is of cells
  } else if (letter === "p" && !command && !event.altKey) {
    actions.pin(actions.cursor());
  } else return;
  event.preventDefault();
  event.stopPropagation();
}
