// Runs a module whose text lies on a model of its own, once for all widgets of a kind (shared/module.py): the page loads
// it once, and a saved notebook holds it once, not with each widget.

const REFERENCE = "IPY_MODEL_";

// By text: two kernels of one page may have different ones.
function moduleFrom(text) {
  const known = (globalThis[Symbol.for("circuit-workbench.modules")] ??= new Map());
  if (!known.has(text)) {
    const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    known.set(text, import(url).finally(() => URL.revokeObjectURL(url)));
  }
  return known.get(text);
}

export default {
  async render(given) {
    const reference = given.model.get("_module");
    const source = await given.model.widget_manager.get_model(reference.slice(REFERENCE.length));
    const { render } = (await moduleFrom(source.get("text"))).default;
    // Taken away meanwhile, so nothing is drawn. This does not end: at its end anywidget would take away what the view
    // that came after it listens to.
    return given.signal?.aborted ? new Promise(() => {}) : render(given);
  },
};
