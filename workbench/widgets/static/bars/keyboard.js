// The keys of a bar list. What is not one of them is left to the page.

import { clamp } from "../grid/cells.js";

export function handleKey(event, view) {
  const names = view.names();
  if (!names.length) return;
  const command = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const cursor = view.cursor();
  const at = names.indexOf(cursor);
  const page = Math.max(1, Math.floor(view.page.list.clientHeight / view.page.list.children[0].offsetHeight) - 1);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -names.length, End: names.length };
  if (key in steps) view.setCursor(names[at < 0 && steps[key] === 1 ? 0 : clamp(at + steps[key], 0, names.length - 1)]);
  else if (command && (key === "z" || key === "y")) view.picks.tell({ event: key === "y" || event.shiftKey ? "redo" : "undo" });
  else if (command && key === "a") view.takeAll();
  else if (key === " " || (key === "Enter" && !event.shiftKey && !command)) {
    view.setCursor(cursor || names[0]);
    view.toggle(cursor || names[0]);
  } else if (key === "p" && !command && !event.altKey) view.pin(cursor);
  else return;
  event.preventDefault();
  event.stopPropagation();
}
