"""What Python refuses, the browser does not go on showing."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

CONTROLS = """from ipywidgets import VBox
from traitlets import TraitError
from workbench.widgets.shared.controls import Dropdown, Select
from workbench.widgets.compare.slider import Slider

slider, line = Slider("Strength", value=0.4), Select(description="Facts", options=["a", "b", "c"])
menu = Dropdown(description="Map", options=["d", "e"])

def refuse(state):
    raise TraitError("not now")

VBox([slider, line, menu])"""
HELD = "[slider.value, line.value, menu.value]"


def test_a_refused_value_gives_way_to_pythons(run_notebook: Any, page: Page) -> None:
    notebook = run_notebook(CONTROLS)
    slider, line = page.get_by_role("slider", name="Strength"), page.get_by_label("Facts")
    menu = page.get_by_label("Map", exact=True)

    slider.press("End")
    line.select_option(label="b")
    menu.select_option(label="e")
    notebook.wait_for(HELD, [1.0, "b", "e"])

    notebook.execute("slider.check = line.check = menu.check = refuse")
    slider.press("Home")
    line.select_option(label="c")
    menu.select_option(label="d")
    notebook.wait_for("[str(one.error) for one in (slider, line, menu)]", ["not now"] * 3)
    expect(slider).to_have_value("1")
    expect(page.locator(".wb-slider output")).to_have_text("1.00")
    expect(line).to_have_value("b")
    expect(menu).to_have_value("e")
    assert notebook.ask(HELD) == [1.0, "b", "e"]

    notebook.execute("del slider.check, line.check, menu.check")
    slider.press("Home")
    line.select_option(label="c")
    menu.select_option(label="d")
    notebook.wait_for(HELD, [0.0, "c", "d"])
    expect(slider).to_have_value("0")
