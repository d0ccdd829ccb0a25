// What every panel has: a line that is shown while no kernel listens, controls that then do nothing, keys that stay in
// it, and a way back to its top. See connection.py.

import { connectionOf } from "./kernel.js";

// JupyterLab takes keys at the document, after everything else. These are its own in a panel too; F keys as well.
function isNotebooks(event) {
  const command = event.ctrlKey || event.metaKey || event.altKey;
  const run = event.key === "Enter" && event.shiftKey;
  return command || run || event.key === "Escape" || /^F\d+$/.test(event.key);
}

// Returns the function that takes it back.
function keepKeys(el) {
  let panel = null;
  const keep = (event) => {
    if (!isNotebooks(event)) event.stopPropagation();
  };
  // A view is drawn before its panel is on the page: look for it when a key comes, before the key arrives there.
  const place = () => {
    if (panel || !el.isConnected) return;
    panel = el.closest(".wb-panel");
    if (panel) panel.addEventListener("keydown", keep);
  };
  document.addEventListener("keydown", place, true);
  return () => {
    document.removeEventListener("keydown", place, true);
    if (panel) panel.removeEventListener("keydown", keep);
  };
}

const CONTROLS = "button, input, select, textarea";

// Controls of a panel that no kernel hears: said to be disabled, and deaf to the keyboard too (the style keeps the
// pointer away). Their own `disabled` is Python's, and stays. Returns the function that is told whether it is so.
function deafen(el) {
  const inside = (node) => node instanceof Element && el.isConnected && el.closest(".wb-panel")?.contains(node);
  const guard = (event) => {
    const control = inside(event.target) ? event.target.closest(CONTROLS) : null;
    if (!control) return;
    control.setAttribute("aria-disabled", "true");
    if (event.type === "focusin" || event.key === "Tab" || (event.type === "keydown" && isNotebooks(event))) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  const mark = (lost) => {
    for (const control of el.closest(".wb-panel")?.querySelectorAll(CONTROLS) ?? []) {
      if (lost) control.setAttribute("aria-disabled", "true");
      else control.removeAttribute("aria-disabled");
    }
  };
  let before = false;
  return (lost) => {
    if (lost !== before) {
      for (const type of ["keydown", "click", "input", "beforeinput", "focusin"]) {
        if (lost) document.addEventListener(type, guard, true);
        else document.removeEventListener(type, guard, true);
      }
    }
    if (lost || before) requestAnimationFrame(() => mark(lost)); // the panel may not be on the page yet
    before = lost;
  };
}

// Another tab may be shorter than the one before, and the page stand far below it: on nothing. Brings the panel's top
// back, where that is above what is seen.
function turnTo(el) {
  const panel = el.closest(".wb-panel");
  if (!panel) return;
  let seen = panel.parentElement;
  while (seen && !/auto|scroll/.test(getComputedStyle(seen).overflowY)) seen = seen.parentElement;
  const top = seen ? seen.getBoundingClientRect().top : 0;
  if (panel.getBoundingClientRect().top < top) panel.scrollIntoView({ block: "start" });
}

function render({ model, el }) {
  const line = document.createElement("div");
  line.className = "wb-connection";
  line.setAttribute("role", "status");
  el.append(line);

  const connection = connectionOf(model);
  const tell = deafen(el);
  const say = (lost) => {
    const ended = el.isConnected && el.closest(".wb-panel")?.querySelector("progress, .wb-busy");
    const more = ended ? " What was running has ended with it." : "";
    line.textContent = lost ? `Not connected to a kernel: run the cell again to use this panel.${more}` : "";
  };
  const show = () => {
    const lost = !connection.live();
    line.classList.toggle("wb-lost", lost);
    say(lost);
    if (lost) requestAnimationFrame(() => say(!connection.live())); // the panel may not be on the page yet
    tell(lost);
  };
  const stopWatching = connection.watch(show);
  show();
  const giveKeysBack = keepKeys(el);
  const hear = (message) => {
    if (message?.show === "top") requestAnimationFrame(() => requestAnimationFrame(() => turnTo(el)));
  };
  model.on("msg:custom", hear);
  return () => {
    model.off("msg:custom", hear);
    giveKeysBack();
    stopWatching();
    tell(false);
  };
}

export default { render };
