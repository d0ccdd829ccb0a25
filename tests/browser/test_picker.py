"""CircuitPicker in a real JupyterLab, with the bundled model and small made-up maps: what is seen and what is held."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Notebook, settled_box
from workbench.plots.style import short_number

pytestmark = [pytest.mark.browser, pytest.mark.model]

Run = Callable[..., Notebook]

# A fact of the user's own; a token of it is markup. The maps are made up, so that nothing has to be computed.
PICKER = """
import torch
import workbench as wb
from workbench.types import EffectMap, TracedPrompt
model, bad = wb.load_model(), "<img src=x onerror=alert(1)>"
fact = wb.Fact(id="own", subject="France", prompt="The capital of France is", answer="Paris", target="Rome",
               question=f"{bad} What is the capital of France?")
tokens = (bad, " The", " capital", " of", " France", " is")
prompt = TracedPrompt(fact_id="own", form="cloze", text="", prefix="", token_ids=tuple(range(6)), tokens=tokens,
                      subject=(4,), answer_id=1, answer_token=" Paris", other_id=2, other_token=bad)
shape, draw = model.shape, torch.Generator().manual_seed(0)
layers = tuple(f"L{i}" for i in range(shape.n_layers))
def made(unit, axis, labels, method):
    axes, size = ("layer",), (shape.n_layers,)
    given = {"layer": layers}
    if axis:
        axes, size, given = ("layer", axis), (shape.n_layers, len(labels)), {"layer": layers, axis: tuple(labels)}
    return EffectMap(values=torch.randn(size, generator=draw), axes=axes, labels=given, unit=unit, metric="logit_diff",
                     method=method, clean=3.25, corrupted=-1.5, prompts=(prompt,), corruption="noise")
maps = {
    "resid": made("resid", "position", tokens, "noise"),
    "mlp": made("mlp", "position", tokens, "noise"),
    "heads": made("head", "head", [f"H{i}" for i in range(shape.n_heads)], "attribution"),
    "mlps": made("mlp", None, (), "attribution"),
    "neurons": made("neuron", "neuron", [f"N{i}" for i in range(shape.d_mlp)], "attribution - controls"),
}
picker = wb.CircuitPicker(model, fact, corruption="noise", compute=False)
picker.show(fact, maps)
from workbench.widgets.picker.attention import Attention
picker._linked.set_attention(Attention(torch.full((30, 9, 6, 6), 0.5), prompt))
"""
BAD = "<img src=x onerror=alert(1)>"
SHAPES = {"Trace": (30, 6), "Heads": (30, 9), "MLPs": (30, 1)}
GRIDS = {"Trace": 0, "Heads": 1, "MLPs": 2}


def root(page: Page, name: str) -> Locator:
    return page.locator(".wb-panel .hg-root").nth(GRIDS[name])


def point(page: Page, name: str, row: int, col: int) -> tuple[float, float]:
    """The middle of a cell on the page."""
    box = settled_box(root(page, name).locator(".hg-cells"))
    rows, cols = SHAPES[name]
    return box["x"] + (col + 0.5) * box["width"] / cols, box["y"] + (row + 0.5) * box["height"] / rows


def click(page: Page, name: str, row: int, col: int = 0) -> None:
    page.mouse.click(*point(page, name, row, col))


def sees(page: Page, name: str, text: str) -> None:
    """The line below a map."""
    expect(root(page, name).locator(".hg-status")).to_have_text(text)


def chips(page: Page, *names: str) -> None:
    """The chips that are seen, in their order."""
    expect(page.locator(".wb-panel button").filter(has_text=" ×", visible=True)).to_have_text([f"{n} ×" for n in names])


def button(page: Page, name: str) -> Locator:
    return page.locator(".wb-panel").get_by_role("button", name=name)  # an icon is part of a name


def held(notebook: Notebook) -> list[str]:
    return notebook.ask("[str(c) for c in picker.selection]")


def test_estimates_become_exact_layer_by_layer_while_somebody_works_on(run_notebook: Run, page: Page) -> None:
    """The maps stay at one height, what is clicked meanwhile stays selected, and a tooltip stays to be read."""
    notebook = run_notebook(PICKER, "picker")
    before = [root(page, name).locator(".hg-cells").bounding_box() for name in ("Trace", "Heads", "MLPs")]
    for layer in range(12):
        click(page, "Heads", layer, 3)
        notebook.execute(f"picker._linked.refine('heads', {layer}, torch.full((9,), 0.5))")
        notebook.execute(f"picker._linked.refine('mlps', {layer}, torch.tensor(0.5))")
        expect(root(page, "Heads").locator(".hg-title")).to_have_text(f"Heads: {layer + 1} of 30 exact")
        expect(root(page, "Heads").locator(".hg-tip")).to_contain_text("Where the last token attends")
    sees(page, "Heads", "12 heads selected")
    assert held(notebook) == [f"L{layer}H3" for layer in range(12)]
    expect(root(page, "MLPs").locator(".hg-title")).to_have_text("MLPs: 12 of 30 exact")
    after = [root(page, name).locator(".hg-cells").bounding_box() for name in ("Trace", "Heads", "MLPs")]
    assert [b and b["height"] for b in after] == [b and b["height"] for b in before]
    assert len({b and round(b["y"]) for b in after}) == 1


def test_click_box_keyboard_chips_undo_and_redo(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(PICKER, "picker")
    expect(page.get_by_text("Nothing selected")).to_be_visible()
    click(page, "Heads", 23, 4)
    sees(page, "Heads", "1 head selected")
    chips(page, "L23H4")
    click(page, "Trace", 9, 2)  # a residual state: both modules that read it, in all maps
    chips(page, "L23H4", "L9ATTN", "L9MLP")
    sees(page, "Trace", "1 layer selected, at all 6 positions")
    sees(page, "MLPs", "1 MLP selected")
    assert held(notebook) == ["L23H4", "L9ATTN", "L9MLP"]
    expect(page.get_by_text("3 components, ")).to_be_visible()

    page.mouse.move(*point(page, "Heads", 0, 7))
    page.mouse.down()
    page.mouse.move(*point(page, "Heads", 1, 8), steps=4)
    page.mouse.up()
    sees(page, "Heads", "5 heads selected")
    chips(page, "L23H4", "L9ATTN", "L9MLP", "L0H7", "L0H8", "L1H7")
    expect(page.get_by_text("+1 more")).to_be_visible()

    for key in ("Home", "ArrowDown", "Space"):  # the cursor was left on L1H8
        page.keyboard.press(key)
    sees(page, "Heads", "6 heads selected")
    assert held(notebook)[-1] == "L2H0"
    # The layer of the cursor is the same in the other maps.
    assert notebook.ask("[picker.trace.cursor[0], picker.mlps.cursor]") == [2, [2, 0]]
    expect(root(page, "MLPs").get_by_role("gridcell", include_hidden=True)).to_contain_text("L2MLP")

    page.get_by_role("button", name="L9MLP ×").click()
    sees(page, "MLPs", "0 MLPs selected")
    sees(page, "Trace", "0 layers selected")  # the attention alone is not the whole of a residual cell
    assert "L9MLP" not in held(notebook) and "L9ATTN" in held(notebook)
    button(page, "Undo").click()
    sees(page, "MLPs", "1 MLP selected")
    assert held(notebook)[:3] == ["L23H4", "L9ATTN", "L9MLP"]
    button(page, "Redo").click()
    sees(page, "MLPs", "0 MLPs selected")
    expect(button(page, "Redo")).to_be_disabled()
    root(page, "Heads").locator(".hg-cells").focus()
    page.keyboard.press("Control+z")  # in a map: the same as the button
    sees(page, "MLPs", "1 MLP selected")
    page.keyboard.press("Control+Shift+z")
    sees(page, "MLPs", "0 MLPs selected")
    button(page, "Clear").click()
    sees(page, "Heads", "0 heads selected")
    chips(page)
    assert held(notebook) == []


def test_top_k_threshold_random_and_what_is_wrong(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(PICKER, "picker")
    panel = page.locator(".wb-panel")
    panel.get_by_label("top k").fill("3")
    button(page, "Replace").click()
    button(page, "Select top k").click()
    sees(page, "Heads", "3 heads selected")
    top = notebook.ask("[str(c) for c in maps['heads'].top(3)]")
    chips(page, *top)
    assert held(notebook) == top

    for wrong in ("0", "100000"):
        panel.get_by_label("top k").fill(wrong)
        page.keyboard.press("Tab")
        notebook.wait_for("picker.controls['top k'].value", int(wrong))
        button(page, "Select top k").click()
        expect(panel.get_by_role("alert")).to_contain_text(
            f"k must be a whole number from 1 to 270 for this map, got {wrong}"
        )
        assert notebook.ask("type(picker.error).__name__") == "ValueError"
        assert held(notebook) == top
    button(page, "More").click()
    button(page, "Random control").click()
    notebook.wait_for(f"[str(c) for c in picker.selection] != {top}", True)
    drawn = held(notebook)
    sees(page, "Heads", "3 heads selected")
    chips(page, *drawn)
    assert not set(drawn) & set(top)
    panel.get_by_label("Select from").select_option("MLPs")
    panel.get_by_label("at least").fill("1.25")
    button(page, "Select above").click()
    large = notebook.ask("[str(c) for c in maps['mlps'].above(1.25)]")
    assert 0 < len(large) < 10
    sees(page, "MLPs", f"{len(large)} MLP{'s' if len(large) > 1 else ''} selected")
    chips(page, *large)
    expect(panel.get_by_role("alert").filter(visible=True)).to_have_count(0)
    assert notebook.ask("picker.error") is None
    panel.locator("summary", has_text="Code").click()
    expect(panel.locator("pre")).to_contain_text("selection = mlps.above(1.25)")
    notebook.execute("picker.selection = 'L5H1 L6H2'")
    sees(page, "Heads", "2 heads selected")
    chips(page, "L5H1", "L6H2")
    expect(panel.locator("pre")).to_contain_text("wb.Selection('L5H1 L6H2')")


def test_the_list_ranks_all_layers_and_tips_say_what_cells_are(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(PICKER, "picker")
    click(page, "MLPs", 13)
    page.locator(".wb-panel").get_by_label("Ranked").select_option("Neurons")
    rows = page.locator(".wb-panel .bl-row")
    ranked = notebook.ask("picker.ranked.bars.names")
    expect(rows.first).to_contain_text(ranked[0])
    rows.nth(2).click()
    chips(page, "L13MLP", ranked[2])
    assert held(notebook) == ["L13MLP", ranked[2]]
    page.locator(".wb-panel").get_by_label("of", exact=True).select_option("L2")
    expect(rows.first).to_contain_text("L2N")
    page.locator(".wb-panel").get_by_label("Ranked").select_option("Heads")
    page.locator(".wb-panel").get_by_label("of", exact=True).select_option("all layers")

    page.mouse.move(*point(page, "Heads", 3, 5))
    tip = root(page, "Heads").locator(".hg-tip")
    expect(tip.locator(".hg-tip-name")).to_have_text("L3H5")
    value = notebook.ask("float(maps['heads'].values[3, 5])")
    expect(tip.locator(".hg-tip-value")).to_have_text(f"{short_number(value)} logits")
    expect(tip.locator(".hg-tip-text")).to_have_text("Where the last token attends:")
    expect(tip.locator(".hg-bars span").first).to_have_text(BAD)
    expect(tip.locator(".hg-bars span").nth(1)).to_have_text("0.50")
    page.mouse.move(*point(page, "Trace", 4, 5))
    expect(root(page, "Trace").locator(".hg-tip")).to_contain_text("A click selects L4ATTN L4MLP, all tokens")
    page.locator(".wb-panel").get_by_role("button", name="MLP", exact=True).click()
    expect(root(page, "Trace").locator(".hg-title")).to_have_text("Trace: MLP output (noise)")
    click(page, "Trace", 20, 1)
    chips(page, "L13MLP", ranked[2], "L20MLP")
    assert page.locator(".wb-panel img").count() == 0  # a dialog or a request for x would fail the test as well
    expect(page.locator(".wb-panel").get_by_role("heading").first).to_have_text(f"{BAD} What is the capital of France?")


def test_a_pin_shows_a_heads_attention_at_the_side(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(PICKER, "picker")
    root(page, "Heads").locator(".hg-cells").focus()
    notebook.execute("picker.heads.cursor = [3, 5]")
    page.keyboard.press("p")
    expect(page.get_by_role("heading", name="L3H5: query head")).to_be_visible()
    expect(page.locator(".wb-panel").get_by_text("Where L3H5 attends")).to_be_visible()
    assert notebook.ask("[picker.heads.pinned, len(picker.selection)]") == [[[3, 5]], 0]
    row = page.locator(".wb-panel .bl-row").first
    row.hover()
    row.locator(".bl-pin").click()
    name = notebook.ask("picker.ranked.bars.names[0]")
    expect(page.get_by_role("heading", name=f"{name}: query head")).to_be_visible()
    page.get_by_role("button", name="Unpin").first.click()
    expect(page.get_by_role("heading", name="L3H5: query head")).to_be_hidden()
    assert notebook.ask("[str(c) for c in picker.pinned]") == [name]


def test_after_a_kernel_restart_it_says_not_connected(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(PICKER, "picker")
    click(page, "Heads", 5, 2)
    sees(page, "Heads", "1 head selected")
    notebook.restart_kernel()
    expect(page.locator(".wb-lost").locator("visible=true")).to_have_count(1)
    expect(root(page, "Heads").locator(".hg-badge")).to_be_hidden()
    click(page, "Heads", 7, 7)
    sees(page, "Heads", "2 heads selected · 1 waiting for Python")
    expect(root(page, "Heads").locator(".hg-banner")).to_contain_text("not connected")
    chips(page, "L5H2")
    assert notebook.ask("'picker' in globals()") is False


@pytest.mark.parametrize(("theme", "width"), [("JupyterLab Light", 1100), ("JupyterLab Dark", 1900)])
def test_layout_themes_and_accessibility(run_notebook: Run, page: Page, theme: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 1400})
    notebook = run_notebook(PICKER, "picker")
    notebook.theme(theme)
    click(page, "Heads", 5, 2)
    chips(page, "L5H2")
    boxes = [root(page, name).locator(".hg-cells").bounding_box() for name in ("Trace", "Heads", "MLPs")]
    tops, heights = ({round(box[side]) for box in boxes if box is not None} for side in ("y", "height"))
    assert len(tops) == len(heights) == 1, "a layer is not at one height in the three maps"
    for i in range(3):
        scroll = page.locator(".wb-panel .hg-scroll").nth(i)
        wide = scroll.evaluate("(node) => node.scrollWidth - node.clientWidth")
        assert wide <= 0, f"map {i} is cut by {wide} px"
    panel = page.locator(".wb-panel").first
    assert panel.evaluate("(node) => node.scrollWidth <= node.clientWidth")
    expect(panel.get_by_text("clean 3.25, corrupted −1.5 logits")).to_be_visible()
    panel.locator("summary").first.click()
    expect(panel.get_by_text("It has no gates of its own")).to_be_visible()
    panel.locator("summary", has_text="Code").click()
    notebook.execute("picker._say(ValueError('A problem, shown'))")
    expect(panel.get_by_role("alert").filter(visible=True)).to_contain_text("A problem, shown")
    page.mouse.move(*point(page, "Heads", 6, 3))
    expect(root(page, "Heads").locator(".hg-tip-text")).to_be_visible()
    assert held(notebook) == ["L5H2"]
    found = Axe().run(page, context=".wb-panel")
    assert found.violations_count == 0, found.generate_report()


def test_how_fast_it_is(run_notebook: Run, page: Page, record_property: Callable[[str, object], None]) -> None:
    """A click until the bar below shows it: the goal is 100 ms. The tooltip's pattern: 150 ms. Loose guards."""
    run_notebook(PICKER, "picker")
    page.evaluate(
        """() => {
          window.clicks = []; window.tips = [];
          let start = null, moved = null, seen = null;
          document.addEventListener('pointerup', () => (start = performance.now()), true);
          const panel = document.querySelector('.wb-panel');
          const tip = document.querySelectorAll('.wb-panel .hg-tip')[1];
          new MutationObserver(() => {
            const text = panel.innerText.match(/(\\d+) components?, /);
            if (start !== null && text && text[1] !== seen) {
              window.clicks.push(performance.now() - start);
              start = null; seen = text[1];
            }
          }).observe(panel, { childList: true, characterData: true, subtree: true });
          document.addEventListener('pointermove', () => (moved = performance.now()), true);
          new MutationObserver(() => {
            if (moved === null || !tip.querySelector('.hg-bars')) return;
            window.tips.push(performance.now() - moved);
            moved = null;
          }).observe(tip, { childList: true, subtree: true });
        }"""
    )
    for i in range(12):
        page.mouse.move(*point(page, "Heads", 2 * i, i % 9))
        page.wait_for_timeout(200)  # as a person does
        click(page, "Heads", 2 * i, i % 9)
        sees(page, "Heads", f"{i + 1} head{'s' if i else ''} selected")
        expect(page.get_by_text(f"{i + 1} component{'s' if i else ''}, ")).to_be_visible()
    click_ms, tip_ms = (statistics.median(page.evaluate(f"window.{name}")) for name in ("clicks", "tips"))
    print(f"\nCircuitPicker: a click {click_ms:.0f} ms, the attention pattern {tip_ms:.0f} ms (medians of 12)")
    record_property("picker_click_ms", click_ms)
    record_property("picker_hover_ms", tip_ms)
    assert click_ms < 500
    assert tip_ms < 600
