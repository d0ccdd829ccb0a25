"""Modules of JavaScript are joined as they are written down here, and refused where that would change their meaning."""

from __future__ import annotations

import glob
import re
import tomllib
from pathlib import Path

import pytest

from workbench.widgets.compare.slider import Slider
from workbench.widgets.graph.view import GraphView
from workbench.widgets.grid.bar_list import BarList
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.shared.code_block import CodeBlock
from workbench.widgets.shared.connection import Connection
from workbench.widgets.shared.javascript import STATIC, read_module
from workbench.widgets.shared.module import SharedModule

ROOT = Path(__file__).parents[2]
ENTRIES = {
    "grid/grid.js": HeatGrid,
    "bars/bars.js": BarList,
    "graph/graph.js": GraphView,
    "module.js": SharedModule,
    "code.js": CodeBlock,
    "connection.js": Connection,
    "slider.js": Slider,
}
SOURCES = sorted(STATIC.rglob("*.js"))


def write(folder: Path, **files: str) -> Path:
    """Write ``a="..."`` to ``parts/a.js``."""
    (folder / "parts").mkdir()
    for name, text in files.items():
        (folder / "parts" / f"{name}.js").write_text(text, encoding="utf-8")
    return folder


def test_parts_are_joined_in_the_order_of_their_imports(tmp_path: Path) -> None:
    write(
        tmp_path,
        main='// The entry.\n\nimport { b, other } from "./b.js";\nimport {\n  A,\n} from "./a.js";\n\n'
        'const text = `import { x } from "./x.js"`;\n\nexport default { b, A, other, text };\n',
        b='import { A } from "./a.js";\nexport function b() {\n  return A;\n}\nexport async function other() {}\n'
        "let hidden;\n",
        a="// Comment.\nexport class A {\n  export = 1;\n}\n",
    )
    assert read_module("parts/main.js", tmp_path) == (
        "// parts/a.js\n// Comment.\nclass A {\n  export = 1;\n}\n"
        "\n// parts/b.js\nfunction b() {\n  return A;\n}\nasync function other() {}\nlet hidden;\n"
        "\n// parts/main.js\n// The entry.\n\n"
        'const text = `import { x } from "./x.js"`;\n\nexport default { b, A, other, text };\n'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('import { a as b } from "./good.js";', r"parts/main.js:1: an import may not rename: 'a as b'"),
        ('\nimport * as a from "./good.js";', r"main.js:2: .*is not understood at the top level. Allowed: import \{"),
        ('import a from "./good.js";', r"main.js:1: .*is not understood"),
        ('import { a } from "d3";', r"main.js:1: .*is not understood"),
        ('import "./good.js";', r"main.js:1: .*is not understood"),
        ("import { a } from './good.js';", r"main.js:1: .*is not understood"),
        ('import { a } from "./missing.js";', r"main.js:1: there is no module './missing.js' below"),
        ('import { a } from "../../outside.js";', r"main.js:1: there is no module '../../outside.js' below"),
        ('import { b } from "./good.js";', r"main.js:1: parts/good.js does not export 'b'; it exports a, c"),
        ('import { a } from "./good.js";\nimport { a } from "./good.js";', r"main.js:2: 'a' is imported in line 1 too"),
        ('import { c } from "./good.js";\n\nconst a = 1;', r"main.js:3: 'a' is declared in parts/good.js:1 too"),
        ("let a = 1;\nfunction a() {}", r"main.js:2: 'a' is declared in line 1 too"),
        ('import { d } from "./circle.js";', r"circle.js:2: .* in a circle: parts/main.js -> .*circle.js -> .*main.js"),
        ('import { e } from "./default.js";', r"default.js:2: only the entry point parts/main.js may have"),
        ("export { a };", r"main.js:1: 'export \{ a \};' is not understood"),
        ("export const { a } = b;", r"main.js:1: .*is not understood"),
        ("export default function render() {}", r"main.js:1: .*is not understood"),
        ("export default {};\nexport default {};", r"main.js:2: .*is not understood"),
        ("var a = 1;", r"main.js:1: .*is not understood"),
        ("start();", r"main.js:1: 'start\(\);' is not understood"),
    ],
)
def test_what_a_joined_text_cannot_say_is_refused(tmp_path: Path, text: str, message: str) -> None:
    write(
        tmp_path,
        main=f"{text}\nexport function f() {{}}\n",
        good="export const a = 1;\nexport const c = 1;\n",
        circle='\nimport { f } from "./main.js";\nexport const d = f;\n',
        default="export const e = 1;\nexport default {};\n",
    )
    with pytest.raises(ValueError, match=message):
        read_module("parts/main.js", tmp_path)


def test_a_missing_entry_point(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_module("none.js", tmp_path)


@pytest.mark.parametrize(("entry", "widget"), ENTRIES.items())
def test_a_widgets_source_is_one_module(entry: str, widget: type) -> None:
    source = read_module(entry)
    shared = getattr(widget, "_text", None)
    assert (widget._esm if shared is None else shared) == source
    assert not re.search("^import", source, re.MULTILINE)
    assert re.findall("^export.*", source, re.MULTILINE)[0].startswith("export default {")
    assert len(re.findall("^export", source, re.MULTILINE)) == 1


def test_every_file_is_a_part_of_a_widget() -> None:
    parts = {part for entry in ENTRIES for part in re.findall(r"^// (\S+\.js)$", read_module(entry), re.MULTILINE)}
    assert parts == {path.relative_to(STATIC).as_posix() for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_a_module_is_short_and_uses_what_it_imports(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 250
    for names in re.findall(r"^import \{([^}]*)\}", source, re.MULTILINE):
        for name in names.split(","):
            assert len(re.findall(rf"\b{name.strip()}\b", source)) > 1, f"{name} is imported and not used"


def test_the_package_has_every_static_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["workbench"]
    root = ROOT / "workbench"
    shipped = {root / name for pattern in patterns for name in glob.glob(pattern, root_dir=root, recursive=True)}
    assert {path for path in STATIC.rglob("*") if path.is_file()} <= shipped
