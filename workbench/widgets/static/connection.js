// What every panel has: a line that is shown while no kernel listens, and keys that stay in it. See connection.py.

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

function render({ model, el }) {
  const line = document.createElement("div");
  line.className = "wb-connection";
  line.setAttribute("role", "status");
  el.append(line);

  const connection = connectionOf(model);
  const show = () => {
    const lost = !connection.live();
    line.classList.toggle("wb-lost", lost);
    line.textContent = lost ? "Not connected to a kernel: run the cell again to use this panel." : "";
  };
  const stopWatching = connection.watch(show);
  show();
  const giveKeysBack = keepKeys(el);
  return () => {
    giveKeysBack();
    stopWatching();
  };
}

export default { render };
