"""What holds for every figure: it runs no text, is the same each time, and is written whole or not at all."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.results import EVIL, PROBABILITIES, edit, head_map, layer_map, neuron_map, report, trace
from workbench import plots
from workbench.types import EvalReport, Fact


def all_figures() -> dict[str, Any]:
    return {
        "trace": plots.effect_figure(trace()),
        "evil": plots.effect_figure(trace(EVIL, (1,))),
        "heads": plots.effect_figure(head_map(), group_size=3),
        "layers": plots.effect_figure(layer_map()),
        "neurons": plots.effect_figure(neuron_map(), n_neurons=4),
        "history": plots.history_figure(edit()),
        "rates": plots.rates_figure(report()),
        "probabilities": plots.probabilities_figure(PROBABILITIES),
        "difference": plots.difference_figure(trace(), trace(clean=0.5)),
    }


def texts(figure: Any) -> list[str]:
    """Every string in a figure, except the plain description that plotly never draws."""
    content = figure.to_dict()
    content["layout"].pop("meta")
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            for v in value.values():
                walk(v)
        elif isinstance(value, (list, tuple)):
            for v in value:
                walk(v)

    walk(content)
    return found


# --- escaping ---------------------------------------------------------------------------------------------------------


def test_escape() -> None:
    assert plots.escape('<b a="1">&amp;</b>') == "&lt;b a=&#34;1&#34;&gt;&amp;amp;&lt;/b&gt;"
    assert plots.escape("%{x} 5% $a$ \n") == "&#37;{x} 5% &#36;a&#36;  "


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" of", "·of"),
        ("\n", "⏎"),
        ("\r\n\t", "␍⏎⇥"),
        ("   ", "···"),
        ("", "∅"),
        ("New York ", "New York·"),
        ("\u202eab", "\\u202eab"),
        ("é漢", "é漢"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert plots.visible(text) == shown


def test_visible_cuts_to_the_limit() -> None:
    assert plots.visible("abcdefgh", 5) == "abcd…"


@pytest.mark.parametrize("evil", [*EVIL, "<b>x</b>"])
def test_no_untrusted_text_reaches_a_figure_unescaped(evil: str) -> None:
    fact = Fact(subject="s", prompt="s", question="q", answer=evil, target="t", id=evil)
    bad = report()
    bad = EvalReport(rows=(), rates={evil: bad.rates["learn"]}, facts=(evil,), stages=(evil,))
    figures = [
        plots.effect_figure(trace((evil, " " + evil), (1,)), title=evil),
        plots.effect_figure(trace(metric=evil)),
        plots.history_figure(edit(fact)),
        plots.rates_figure(bad),
        plots.probabilities_figure({evil: {evil: 0.5}}),
        plots.difference_figure(trace((evil, "b")), trace((evil, "b"))),
    ]
    for figure in figures:
        for text in texts(figure):
            assert "<img" not in text
            assert "<a " not in text
            assert "<script" not in text
            assert "$" not in text
            assert "<b>x" not in text
            if "%{x}" in text:  # plotly's own place holder, in the templates written here
                assert "step %{x}" in text or "effect <b>%{x" in text
        assert any(plots.escape(evil)[:12] in text for text in texts(figure))


# --- all --------------------------------------------------------------------------------------------------------------


def test_figures_are_deterministic_and_described() -> None:
    first, second = all_figures(), all_figures()
    for name, figure in first.items():
        assert figure.to_json() == second[name].to_json(), name
        assert len(figure.layout.meta["alt"]) > 30
        assert figure.layout.paper_bgcolor == "#ffffff"
        assert figure.layout.font.color == "#1a1a1a"
        assert '"uid"' not in figure.to_json()
        json.loads(figure.to_json(), parse_constant=pytest.fail)  # no NaN, no Infinity


def test_plotting_changes_nothing() -> None:
    effect = trace()
    before = effect.values.clone()
    plots.difference_figure(effect, effect)
    plots.effect_figure(effect)
    assert effect.values.equal(before)


# --- files ------------------------------------------------------------------------------------------------------------


def test_write_html_is_self_contained_and_deterministic(tmp_path: Path) -> None:
    figure = plots.effect_figure(trace(EVIL, (0,)))
    one = plots.write_image(figure, tmp_path / "new" / "a.html").read_text()
    two = plots.write_image(figure, tmp_path / "b.HTML").read_text()
    assert one == two
    assert 'src="http' not in one
    assert "</script><script>alert(1)" not in one
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.HTML", "new"]


@pytest.mark.browser
@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<svg"), ("a.pdf", b"%PDF-")])
def test_write_images(tmp_path: Path, name: str, start: bytes) -> None:
    path = plots.write_image(plots.effect_figure(trace()), tmp_path / name)
    assert path.read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_write_image_refuses_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf or \.html, got 'a\.gif'"):
        plots.write_image(plots.effect_figure(trace()), tmp_path / "a.gif")


def test_write_image_without_kaleido(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(RuntimeError, match="pip install kaleido"):
        plots.write_image(plots.effect_figure(trace()), tmp_path / "a.png")


def test_write_image_without_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    def missing(*args: Any, **kwargs: Any) -> bytes:
        assert kwargs["kopts"] == {"mathjax": False}  # else it is fetched from a content server
        raise ChromeNotFoundError

    monkeypatch.setattr(kaleido, "calc_fig_sync", missing)
    with pytest.raises(RuntimeError, match="Chromium is needed to write svg files"):
        plots.write_image(plots.effect_figure(trace()), tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []


def test_write_image_where_the_browser_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    import kaleido

    from workbench.plots import export

    end = threading.Event()
    assert export.MOST_SECONDS == 60
    monkeypatch.setattr(export, "MOST_SECONDS", 0.05)
    monkeypatch.setattr(kaleido, "calc_fig_sync", lambda *_, **__: end.wait(60))
    try:
        with pytest.raises(RuntimeError, match=r"has not answered for 0 s\. Write an \.html file instead"):
            plots.write_image(plots.effect_figure(trace()), tmp_path / "a.png")
    finally:
        end.set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_write_image_where_the_browser_does_not_exist(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no browser"))  # where kaleido looks first
    path = tmp_path / f"a.{kind}"
    path.write_text("the old picture")
    with pytest.raises(RuntimeError, match=f"Chromium is needed to write {kind} files.*or write an .html file instead"):
        plots.write_image(plots.effect_figure(trace()), path)
    assert path.read_text() == "the old picture"
    assert plots.write_image(plots.effect_figure(trace()), tmp_path / "a.html").is_file(), "what the message offers"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.html"
    path.write_text("old")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        plots.write_bytes(path, b"new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]
