"""The check of a built site finds each kind of fault, and nothing in a site without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from docsite.check import main, problems

NAME = "workbench.rewrite"
POLICY = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'self' data:; object-src 'none'\">"
GOOD = {
    "index.html": f"{POLICY}<link rel=stylesheet href=assets/a.css><link rel=canonical href='https://example.org/'>"
    '<h1 id="top">Home</h1><a href="page.html#a%20place">on</a> <a href="#top">up</a> <a href="https://example.org">out'
    '</a><a href="mailto:a@example.org">write</a> <img src="assets/a.png" srcset="assets/a.png 2x">'
    "<script src=assets/a.js></script><script type='application/json'>{\"a\": \"fetch('https://e.org')\"}</script>",
    "page.html": f'{POLICY}<h2 id="a place">Here</h2><a href="index.html">home</a> <a href="/index.html#top">top</a>',
    "reference/api/editing.html": f'{POLICY}<h2 id="{NAME}">wb.rewrite</h2><a href="../../index.html">home</a>',
    "assets/a.css": "a { background: url(a.png) } b { background: url('data:image/png;base64,AAAA') }",
    "assets/a.js": "const namespace = 'http://www.w3.org/2000/svg'; fetch('search.json'); // see https://example.org",
    "assets/a.png": "",
}
FAULTS = {
    "a page that is not there": ("index.html", "page.html#a%20place", "gone.html", "a link to gone.html, which is"),
    "a place that is not there": ("index.html", "#a%20place", "#gone", "link to page.html#gone: the page has no such"),
    "a place on the same page": ("index.html", 'href="#top"', 'href="#gone"', "a link to #gone: the page has no such"),
    "a page above the site": ("page.html", 'href="index.html"', 'href="../../x/index.html"', "which is not there"),
    "a picture that is not there": ("index.html", 'src="assets/a.png"', 'src="b.png"', "asks for b.png, which is not"),
    "a picture elsewhere": ("index.html", 'src="assets/a.png"', 'src="https://e.org/b.png"', "asks another host for"),
    "a picture elsewhere, by size": (
        "index.html",
        '"assets/a.png 2x"',
        '"//e.org/b.png 2x"',
        "another host for //e.org",
    ),
    "a script elsewhere": (
        "index.html",
        "src=assets/a.js",
        "src=https://cdn.e.org/a.js",
        "another host for https://cdn",
    ),
    "a style elsewhere": (
        "index.html",
        "href=assets/a.css",
        "href=https://e.org/a.css",
        "another host for https://e.org",
    ),
    "a font elsewhere": ("index.html", "rel=canonical", "rel=preconnect", "another host for https://example.org/"),
    "a style of an element": (
        "index.html",
        "<h1",
        "<h1 style='background: url(http://e.org/a)'",
        "another host for http",
    ),
    "a style in the page": (
        "index.html",
        "<h1",
        "<style>@import '//e.org/a.css';</style><h1",
        "another host for //e.org",
    ),
    "a style sheet": ("assets/a.css", "url(a.png)", "url(https://e.org/a.woff2)", "assets/a.css: asks another host"),
    "a picture of a style": ("assets/a.css", "url(a.png)", "url(b.png)", "assets/a.css: asks for b.png, which is not"),
    "a script that fetches": (
        "assets/a.js",
        "'search.json'",
        "'https://e.org/x'",
        "assets/a.js: loads https://e.org/x",
    ),
    "a script that imports": (
        "assets/a.js",
        "fetch(",
        'import x from "https://e.org/m.js"; fetch(',
        "loads https://e.org",
    ),
    "a script in the page": (
        "index.html",
        "<h1",
        "<script>import('https://e.org/m.js')</script><h1",
        "index.html: loads",
    ),
    "a frame": (
        "index.html",
        "<h1",
        "<iframe src='https://e.org/'></iframe><h1",
        "asks another host for https://e.org/",
    ),
    "a page that goes on": (
        "page.html",
        "<h2",
        "<meta http-equiv=refresh content='0; url=https://e.org/'><h2",
        "another host",
    ),
    "no policy": ("page.html", "http-equiv", "name", "has no content security policy"),
    "a policy for all": ("page.html", "'self' data:", "*", "has no content security policy"),
    "a diagram by script": ("page.html", "<h2", '<pre class="mermaid">a</pre><h2', "has a diagram that a script"),
    "a name without an entry": (
        "reference/api/editing.html",
        NAME,
        "workbench.other",
        f"the public name {NAME} has no",
    ),
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_a_site_that_holds_together_has_no_problems(tmp_path: Path) -> None:
    assert problems(write(tmp_path, GOOD), [NAME]) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_nothing_else(fault: str, tmp_path: Path) -> None:
    file, good, bad, words = FAULTS[fault]
    assert GOOD[file].count(good) == 1, "the test changes nothing, or too much"
    (found,) = problems(write(tmp_path, GOOD | {file: GOOD[file].replace(good, bad)}), [NAME])
    assert words in found


def test_the_command_says_what_is_wrong_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(write(tmp_path, GOOD | {"page.html": f"{POLICY}<a href='x.html'>x</a>"}))]) == 1
    assert "page.html: a link to x.html, which is not there" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "build the site first (make docs)" in capsys.readouterr().err
    assert main([]) == 2
    assert "usage: python -m docsite.check FOLDER" in capsys.readouterr().err
