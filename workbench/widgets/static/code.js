// Python that repeats what was clicked: a fold with Copy and, in a notebook of JupyterLab, "Insert as cell below".
// See code_block.py.

import { connectionOf } from "./kernel.js";

// The notebook's shared model, where a cell can be inserted; null where there is none (VS Code, Colab) or it may not be
// changed. anywidget hands on the widget manager, and JupyterLab's has the context of the notebook.
function notebookOf(model) {
  const context = model.widget_manager && model.widget_manager.context;
  const notebook = context && context.model;
  if (!notebook || notebook.readOnly || !notebook.sharedModel) return null;
  return typeof notebook.sharedModel.insertCell === "function" ? notebook.sharedModel : null;
}

// The place below the cell that shows an element; the end where no cell of a notebook shows it. JupyterLab takes cells
// out of sight off the page, and numbers those that are on it.
function placeBelow(el, shared) {
  const cell = el.closest(".jp-Notebook .jp-Cell");
  const number = cell ? Number.parseInt(cell.dataset.windowedListIndex ?? "", 10) : NaN;
  const known = number >= 0 && number < shared.cells.length;
  return known ? number + 1 : shared.cells.length;
}

async function copyText(text, el) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea"); // a page that is not served over https
  area.value = text;
  el.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("the browser does not allow it");
}

function smallButton(label, action) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "jupyter-button wb-quiet wb-code-button";
  button.textContent = label;
  button.addEventListener("click", action);
  return button;
}

function render({ model, el }) {
  el.classList.add("wb", "wb-code");
  const fold = document.createElement("details");
  const summary = document.createElement("summary");
  const row = document.createElement("div");
  row.className = "wb-code-row";
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  const text = document.createElement("pre");
  text.tabIndex = 0;
  const code = document.createElement("code");
  text.append(code);
  row.append(
    smallButton("Copy", () =>
      copyText(model.get("source"), row).then(
        () => (said.textContent = "Copied."),
        (error) => (said.textContent = `Not copied: ${error.message}. Select the text instead.`),
      ),
    ),
  );
  const shared = notebookOf(model);
  if (shared) {
    row.append(
      smallButton("Insert as cell below", () => {
        shared.insertCell(placeBelow(el, shared), { cell_type: "code", source: model.get("source"), metadata: {} });
        said.textContent = "Inserted below.";
      }),
    );
  }
  row.append(said);
  fold.append(summary, row, text);
  el.append(fold);

  const connection = connectionOf(model);
  const show = () => {
    summary.textContent = model.get("summary");
    const empty = !model.get("source");
    code.textContent = empty && !connection.live() ? "# No kernel: run the cell again to see it." : model.get("source");
    row.hidden = empty;
    if (fold.open !== model.get("opened")) fold.open = model.get("opened");
  };
  fold.addEventListener("toggle", () => {
    said.textContent = "";
    if (fold.open === model.get("opened")) return;
    model.set("opened", fold.open);
    model.save_changes();
  });
  model.on("change", show);
  const stopWatching = connection.watch(show);
  show();
  return () => {
    model.off(null, show);
    stopWatching();
  };
}

export default { render };
