"""The docs site in Chromium: wide and narrow, light and dark, from a folder and from a server, asking nobody else."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.docs.conftest import site  # noqa: F401  # the built site

pytestmark = pytest.mark.browser
PAGES = (
    *("index.html", "reference/api/index.html", "reference/api/tracing.html", "reference/api/widgets.html"),
    *("tutorials/01_quickstart.html", "tutorials/03_click_a_circuit.html", "development/architecture.html"),
    *("results/speed.html", "concepts/answer-classes.html", "development/changelog.html"),
)
CONTRAST = """() => {
  const lin = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const paint = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const known = new Map();
  const rgba = (text) => {
    if (!known.has(text)) known.set(text, read(text));
    return known.get(text);
  };
  const read = (text) => {
    paint.clearRect(0, 0, 1, 1); paint.fillStyle = text; paint.fillRect(0, 0, 1, 1);
    const d = paint.getImageData(0, 0, 1, 1).data;
    return [d[0], d[1], d[2], d[3] / 255];
  };
  const over = (top, base) => [0, 1, 2].map((i) => top[i] * top[3] + base[i] * (1 - top[3]));
  const light = (c) => 0.2126 * lin(c[0] / 255) + 0.7152 * lin(c[1] / 255) + 0.0722 * lin(c[2] / 255);
  const ground = (node) => {
    const stack = [];
    for (let at = node; at; at = at.parentElement) stack.push(rgba(getComputedStyle(at).backgroundColor));
    return stack.reverse().reduce((base, top) => over(top, base), [255, 255, 255]);
  };
  const low = [];
  const walk = document.createTreeWalker(document.querySelector('.md-content'), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !node.checkVisibility() || node.closest('svg, script, style')) continue;
    if (node.closest('.headerlink, .md-clipboard, button')) continue;
    const back = ground(node), front = over(rgba(getComputedStyle(node).color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const words = walk.currentNode.textContent.trim().slice(0, 40);
    if (ratio < 3) low.push(`${ratio.toFixed(2)} ${node.className} ${words}`);
  }
  return [...new Set(low)].slice(0, 12);
}"""
"""Texts whose contrast is below what even large text needs (WCAG 2: 3 to 1)."""
WIDE = """() => {
  const right = document.documentElement.clientWidth;
  const scrolls = (node) => {
    for (let at = node.parentElement; !at.matches('.md-content'); at = at.parentElement) {
      if (/auto|scroll/.test(getComputedStyle(at).overflowX)) return true;
    }
    return false;
  };
  return [...document.querySelectorAll('.md-content *')]
    .filter((node) => node.checkVisibility() && node.getBoundingClientRect().right > right + 1 && !scrolls(node))
    .map((node) => `${node.tagName}.${node.className} ${node.textContent.slice(0, 40)}`).slice(0, 8);
}"""
"""Elements that stick out of the page, and are in nothing that scrolls."""


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:  # noqa: F811
    """The address of a server of the site."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def wrong() -> list[str]:
    return []


@pytest.fixture
def page(browser: Any, wrong: list[str]) -> Iterator[Any]:
    """A page that keeps what goes wrong on it in ``wrong``."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
    page = context.new_page()
    page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(HERE) else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("response", lambda r: wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    yield page
    context.close()


HERE = ("http://127.0.0.1:", "file://", "data:", "blob:")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_wide_and_narrow(name: str, page: Any, served: str, wrong: list[str]) -> None:
    page.goto(served + name)
    for scheme, shown in (("light", "default"), ("dark", "slate")):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("(shown) => document.body.dataset.mdColorScheme === shown", arg=shown)
        for width in (1400, 400):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_function("[...document.querySelectorAll('.plot')].every((plot) => plot.data)")
            assert page.evaluate(WIDE) == [], f"these stick out at {width} pixels"
            assert page.evaluate(CONTRAST) == [], f"these can hardly be read at {width} pixels, {scheme}"
    assert wrong == []


def test_what_cannot_be_read_is_found(page: Any, served: str) -> None:
    """The two looks at a page see a fault."""
    page.goto(served)
    page.add_style_tag(content=".md-content h1 { color: #dddddd !important } .md-content p { width: 3000px }")
    assert "P." in str(page.evaluate(WIDE))
    (low,) = page.evaluate(CONTRAST)
    assert low.startswith("1.3")


@pytest.mark.parametrize("folder", [False, True], ids=["served", "from a folder"])
def test_a_search_finds_a_public_name(folder: bool, page: Any, site: Path, served: str, wrong: list[str]) -> None:  # noqa: F811
    page.goto(f"{site.as_uri()}/index.html" if folder else served)
    page.locator(".md-search__input").first.click()
    page.keyboard.type("counterfact_rates")
    found = page.locator(".md-search-result__link[href*='workbench.counterfact_rates']").first
    found.wait_for(timeout=15_000)
    found.click()
    page.wait_for_url("**/reference/api/evaluation.html*workbench.counterfact_rates")
    assert page.locator("[id='workbench.counterfact_rates']").is_visible()
    assert wrong == []


def test_the_theme_can_be_chosen_and_stays(page: Any, served: str, wrong: list[str]) -> None:
    page.goto(served)
    page.locator("label[for='__palette_1']:visible").click()
    page.locator("label[for='__palette_2']:visible").click()
    page.wait_for_function("document.body.dataset.mdColorScheme === 'slate'")
    page.goto(served + PAGES[1])
    assert page.evaluate("document.body.dataset.mdColorScheme") == "slate"
    assert wrong == []


def test_the_policy_refuses_another_host(page: Any, served: str, wrong: list[str]) -> None:
    """What the check of the built files cannot see is refused by the browser."""
    page.goto(served)
    page.evaluate(
        "document.head.appendChild(Object.assign(document.createElement('script'), {src: 'https://e.invalid/x.js'}))"
    )
    page.evaluate("fetch('https://e.invalid/y').catch(() => null)")
    page.wait_for_timeout(300)
    refused = [words for words in wrong if "Content Security Policy" in words]
    assert len(refused) >= 2
    assert not [words for words in wrong if "ERR_NAME_NOT_RESOLVED" in words]
