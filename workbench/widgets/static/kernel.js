// Whether a kernel listens to a widget.

// anywidget hides whether the model is connected; its layout is a model of its own, which says so.
export function connectionOf(model) {
  const layout = model.get("layout");
  return {
    live: () => !layout || layout.comm_live !== false,
    // Calls back on every change; returns the function that takes it back.
    watch(callback) {
      if (layout && layout.on) layout.on("comm_live_update", callback);
      return () => {
        if (layout && layout.off) layout.off("comm_live_update", callback);
      };
    },
  };
}
