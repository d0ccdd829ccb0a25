// Whether the page is dark. JupyterLab says so itself; VS Code and Colab in their own ways; others follow the system.

const SYSTEM = "(prefers-color-scheme: dark)";

// True, false, or null where JupyterLab's attribute, and with it its colours, are missing.
export function labIsDark() {
  const light = document.body.dataset.jpThemeLight;
  return light === undefined ? null : light === "false";
}

export function pageIsDark() {
  const lab = labIsDark();
  if (lab !== null) return lab;
  const { classList } = document.body;
  if (classList.contains("vscode-light")) return false;
  if (classList.contains("vscode-dark") || classList.contains("vscode-high-contrast")) return true;
  const colab = document.documentElement.getAttribute("theme");
  return colab ? colab === "dark" : window.matchMedia(SYSTEM).matches;
}

// A root without JupyterLab's colours gets a ground and ink of its own: see `.wb-own` in the style sheets.
export function setGround(root) {
  const own = labIsDark() === null;
  root.classList.toggle("wb-own-light", own && !pageIsDark());
  root.classList.toggle("wb-own-dark", own && pageIsDark());
  root.classList.toggle("wb-dark", pageIsDark());
}

// Calls back when the page changes its theme; returns the function that takes it back.
export function watchTheme(callback) {
  const seen = new MutationObserver(callback);
  const attributeFilter = ["data-jp-theme-light", "data-jp-theme-name", "class", "theme"];
  for (const node of [document.body, document.documentElement]) seen.observe(node, { attributes: true, attributeFilter });
  const system = window.matchMedia(SYSTEM);
  system.addEventListener("change", callback);
  return () => (seen.disconnect(), system.removeEventListener("change", callback));
}
