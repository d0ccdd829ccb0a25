// A line that is shown while no kernel listens. See connection.py.
function render({ model, el }) {
  const line = document.createElement("div");
  line.className = "wb-connection";
  line.setAttribute("role", "status");
  el.append(line);

  // anywidget hides whether the model is connected; its layout is a model of its own, which says so.
  const layout = model.get("layout");
  const show = () => {
    const lost = Boolean(layout) && layout.comm_live === false;
    line.classList.toggle("wb-lost", lost);
    line.textContent = lost ? "Not connected to a kernel: run the cell again to use this panel." : "";
  };
  if (layout && layout.on) layout.on("comm_live_update", show);
  show();
  return () => layout && layout.off && layout.off("comm_live_update", show);
}

export default { render };
