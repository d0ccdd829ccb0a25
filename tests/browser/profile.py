"""A browser profile whose page keeps JupyterLab loaded from one test to the next.

Loading JupyterLab takes longer than most tests do. What a test opened is closed again without a question, so that the
next one finds JupyterLab as if it were new: nothing open, the files at the left, the light theme, the same size.
"""

from __future__ import annotations

from collections import deque

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Error, Page, ViewportSize

SIZE: ViewportSize = {"width": 1100, "height": 900}
PATIENCE = 20_000  # milliseconds that anything may take
LATE = "[anywidget] Failed to initialize model."
"""What anywidget says, on a busy page, of a widget that loads all the same (static/hearing.js)."""
SPOILED = "window.workbenchSpoiled = true;"
"""For the page's JavaScript: this page must not be used by another test."""
TIDY = """async () => {
  const { commands, shell } = jupyterapp;
  for (const one of [...shell.widgets('main')]) one.dispose();
  if (shell.leftCollapsed) shell.expandLeft();
  if (document.body.dataset.jpThemeLight !== 'true')
    await commands.execute('apputils:change-theme', { theme: 'JupyterLab Light' });
  return document.querySelectorAll('.jp-Dialog').length === 0;
}"""

MOST_SHOWN = 6000  # characters of a page
SHOWN = """() => {
  const say = (one) => one.innerText.trim().replace(/\\s*\\n\\s*/g, ' | ').slice(0, 300);
  const open = window.jupyterapp ? [...jupyterapp.shell.widgets('main')].filter((one) => one.context) : [];
  return [
    ...open.map((one) => {
      const session = one.context.sessionContext?.session;
      return `${one.context.path}: kernel ${session?.kernel?.status}, connection ${session?.kernel?.connectionStatus}`;
    }),
    ...[...document.querySelectorAll('.jp-Dialog')].map((one) => `dialog: ${say(one)}`),
    ...[...document.querySelectorAll('.jp-OutputArea-output')].map((one) => `output: ${one.className}: ${say(one)}`),
  ].join('\\n');
}"""
"""What there is on a page, a line each."""


class Profile:
    """A profile of its own, 1100 pixels wide. What a page asks of another host and does not catch is written down.

    Args:
        browser: Where the profile is.
        url: JupyterLab, the only host that may be asked.
    """

    def __init__(self, browser: Browser, url: str) -> None:
        self.url = url
        self.errors: list[str] = []
        self.strangers: list[str] = []
        self.console: deque[str] = deque(maxlen=40)
        self._allowed = (f"{url}/", f"{url.replace('http', 'ws')}/", "data:", "blob:", "about:")
        self.context: BrowserContext = browser.new_context(viewport=SIZE)
        self.context.set_default_timeout(PATIENCE)
        self.context.on("page", self._watch)
        self.context.on("request", lambda request: self._note(request.url))
        self.page: Page = self.context.new_page()

    def _watch(self, page: Page) -> None:
        page.on("pageerror", self._fault)
        page.on("dialog", self._refuse)
        page.on("console", self._hear)
        page.on("websocket", lambda socket: self._note(socket.url))

    def _fault(self, error: Error) -> None:
        if str(error) != LATE:
            self.errors.append(str(error))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.console.append(f"{message.type}: {message.text[:300]}")

    def _refuse(self, dialog: Dialog) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _note(self, url: str) -> None:
        if not url.startswith(self._allowed):
            self.strangers.append(url)

    def tidy(self) -> bool:
        """Close what a test opened; whether the next test may have this page."""
        if self.errors or self.strangers or self.context.pages != [self.page]:
            return False
        if not self.page.url.startswith(f"{self.url}/lab"):
            return False
        try:
            if self.page.evaluate("() => Boolean(window.workbenchSpoiled || !window.jupyterapp)"):
                return False
            self.page.unroute_all()
            self.page.mouse.move(0, 0)
            self.page.set_viewport_size(SIZE)
            self.page.set_default_timeout(PATIENCE)
            return self.page.evaluate(TIDY)
        except Error:
            return False

    def shown(self) -> str:
        """What the pages hold now: kernels, outputs, dialogs, the last errors. For the report of a failed test."""
        found: list[str] = []
        for page in self.context.pages:
            try:
                found += [page.url, page.evaluate(SHOWN)[:MOST_SHOWN]]
            except Error as error:
                found.append(f"{page.url}: {error}")
        return "\n".join([*found, *self.errors, *self.console])

    def close(self) -> None:
        """Close the profile with all its pages, whatever they ask."""
        for one in self.context.pages:
            one.close(run_before_unload=False)
        self.context.close()
