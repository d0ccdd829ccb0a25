"""SharedModule: widgets of one class run one JavaScript module, which the page and a saved notebook hold once.

anywidget keeps the text of its module, ``_esm``, as a trait of every widget, so each of ten maps would send it and be
saved with it. Here ``_esm`` is a few lines (``static/module.js``) that run the text of another model, a ``ModuleText``,
to which all widgets of the class refer. A reference is saved as any other widget's is, so a notebook without a kernel
and a page of ipywidgets' own have it too.
"""

from __future__ import annotations

from typing import Any, ClassVar

import anywidget
import traitlets
from ipywidgets import Widget, widget_serialization

from workbench.widgets.shared.javascript import read_module


class ModuleText(Widget):
    """The text of an ES module. It has no view.

    Args:
        text: The text.
    """

    text = traitlets.Unicode(help="An ES module with a `render`.").tag(sync=True)

    def __init__(self, text: str) -> None:
        super().__init__(text=text)

    def __repr__(self) -> str:
        return f"ModuleText({len(self.text)} characters)"


class SharedModule(anywidget.AnyWidget):
    """An anywidget whose module is shared by all widgets of its class, which names it in ``MODULE``."""

    MODULE: ClassVar[str]
    """The module's entry point, as for ``read_module``."""

    _esm = read_module("module.js")
    _module: Any = traitlets.Instance(ModuleText).tag(sync=True, **widget_serialization)
    _text: ClassVar[str]
    _shared: ClassVar[ModuleText | None]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "MODULE" in cls.__dict__:
            cls._text, cls._shared = read_module(cls.MODULE), None

    def __init__(self, **traits: Any) -> None:
        super().__init__(_module=self.shared_module(), **traits)

    @classmethod
    def shared_module(cls) -> ModuleText:
        """The text that all widgets of the class refer to; made with the first, and anew where it was closed."""
        if cls._shared is None or cls._shared.comm is None:
            owner = next(base for base in cls.__mro__ if "MODULE" in base.__dict__)
            owner._shared = ModuleText(cls._text)
        assert cls._shared is not None
        return cls._shared
