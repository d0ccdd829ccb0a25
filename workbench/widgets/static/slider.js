// The browser's own range input, with its label and its value in words. See slider.py.

import { hear } from "./hearing.js";

function render({ model, el }) {
  hear(model);
  const label = document.createElement("label");
  const name = document.createElement("span");
  const input = document.createElement("input");
  const value = document.createElement("output");
  label.className = "wb-slider";
  Object.assign(input, { type: "range", min: 0, max: 1 });
  // Keys belong to the slider, not to the notebook.
  input.dataset.lmSuppressShortcuts = "true";
  label.append(name, input, value);
  el.append(label);

  const show = () => {
    name.textContent = model.get("description");
    input.step = model.get("step");
    input.value = model.get("value");
    value.textContent = model.get("value").toFixed(2);
  };
  const moved = () => {
    value.textContent = Number(input.value).toFixed(2);
    model.set("value", Number(input.value));
    model.save_changes();
  };
  input.addEventListener("input", moved);
  model.on("change:description change:step change:value", show);
  show();
  return () => model.off(null, show);
}

export default { render };
