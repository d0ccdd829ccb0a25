"""HTML of unknown origin, reduced to what only shows something: texts, tables, and drawings.

An allow-list of elements, attributes and style properties. What is not in it is left out: of an unknown element its
text stays, of one that runs or loads something nothing stays. No element in the list makes a parser read text in
another way, so what is written out here means the same to every browser.
"""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Tag
from bs4.element import Comment, NavigableString, PreformattedString


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ELEMENTS = _words("""
a abbr b bdi bdo blockquote br caption code col colgroup dd del details dfn div dl dt em figcaption figure h1 h2 h3 h4
h5 h6 hr i img ins kbd li mark meter ol p pre progress s samp section small span strong sub summary sup table tbody td
tfoot th thead tr u ul var svg g path line rect circle ellipse polyline polygon text tspan title desc defs pattern
clippath lineargradient stop marker
""")
"""Of texts and of drawings."""
DROPPED = _words("""
script style template noscript iframe object embed frame frameset link meta base head textarea select option button
input form video audio source canvas math xmp plaintext noembed noframes image use foreignobject animate set
animatetransform animatemotion
""")
"""Left out with all that is in them."""
ATTRIBUTES = _words("""
class role title lang dir scope colspan rowspan tabindex open start value max min low high optimum alt width height x
y x1 x2 y1 y2 cx cy r rx ry d points dx dy transform viewbox preserveaspectratio fill stroke offset fill-opacity
fill-rule stroke-width stroke-dasharray stroke-linecap stroke-linejoin stroke-opacity opacity text-anchor
dominant-baseline font-size font-weight font-family stop-color patternunits patterntransform gradientunits
gradienttransform clip-path markerwidth markerheight refx refy orient marker-end
""")
PROPERTIES = _words("""
align-items align-self background background-color border border-color border-left border-radius border-style
border-width color column-gap display fill flex flex-basis flex-direction flex-flow flex-grow flex-shrink flex-wrap
font-family font-size font-style font-weight gap grid-column grid-gap grid-row grid-template-columns
grid-template-rows justify-content justify-items letter-spacing line-height margin margin-bottom margin-left
margin-right margin-top max-width min-width opacity order overflow-wrap padding padding-bottom padding-left
padding-right padding-top row-gap stroke stroke-dasharray stroke-width text-align text-anchor text-decoration
text-transform vertical-align visibility white-space width word-break
""")
_FUNCTIONS = _words("calc clamp color-mix hsl hsla light-dark max min minmax repeat rgb rgba var")
_VALUE = re.compile(r"[\w\s.,#%()+*/'\"-]*")
_PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*")
_HERE = re.compile(r"url\(\s*[\"']?#([\w-]+)[\"']?\s*\)")
_LISTS_OF_IDS = ("aria-labelledby", "aria-describedby", "aria-details")
_OTHER_IDS = ("aria-controls", "aria-owns", "aria-activedescendant", "aria-flowto", "aria-errormessage")


def clean_html(markup: str, prefix: str = "") -> str:
    """Return HTML that can neither run nor load anything.

    Args:
        markup: HTML from anywhere.
        prefix: Before every ``id`` and reference to one, so that several pieces can stand on one page.

    Example:
        >>> clean_html('<p onclick="f()">Rome<script>f()</script> <blink>now</blink></p>')
        '<p>Rome now</p>'
    """
    soup = BeautifulSoup(markup, features="html.parser")
    for text in soup.find_all(string=lambda text: isinstance(text, Comment | PreformattedString)):
        text.extract()
    for element in soup.find_all(True):
        if element.decomposed:
            continue
        if element.name in DROPPED:
            element.decompose()
        elif element.name not in ELEMENTS or not _clean(element, prefix):
            element.unwrap()
    return str(soup)


def clean_style(style: str) -> str:
    """The declarations of a ``style`` attribute that only lay out and colour.

    Example:
        >>> clean_style("width: 20px; position: fixed; background: url(//a.b/c)")
        'width: 20px'
    """
    kept: list[str] = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name.lower() in PROPERTIES and is_plain(value):
            kept.append(f"{name.lower()}: {value}")
    return "; ".join(kept)


def is_plain(value: str) -> bool:
    """Whether a value of CSS loads nothing: words, numbers and functions that only compute."""
    called = {name.lower() for name in re.findall(r"([\w-]*)\(", value)}
    return bool(value) and _VALUE.fullmatch(value) is not None and called <= _FUNCTIONS


def _clean(element: Tag, prefix: str) -> bool:
    """Reduce the attributes of an element; False where without them it shows nothing."""
    attributes, element.attrs = dict(element.attrs), {}
    for name, given in attributes.items():
        value = " ".join(given) if isinstance(given, list) else str(given)
        name = name.lower()
        if name == "style":
            if style := clean_style(value):
                element[name] = style
        elif name == "src" and element.name == "img" and _PICTURE.fullmatch(value):
            element[name] = value
        elif name == "id":
            element[name] = prefix + value
        elif name in _LISTS_OF_IDS:
            element[name] = " ".join(prefix + part for part in value.split())
        elif name == "tabindex":
            element[name] = "0"
        elif name in ATTRIBUTES or (re.fullmatch(r"aria-[a-z]+", name) and name not in _OTHER_IDS):
            if "(" not in value or name not in ("fill", "stroke", "clip-path", "marker-end", "stop-color"):
                element[name] = value
            elif reference := _HERE.fullmatch(value.strip()):
                element[name] = f"url(#{prefix}{reference[1]})"
            elif is_plain(value):
                element[name] = value
    if element.name == "img":
        if "src" not in element.attrs:
            element.append(NavigableString(str(element.attrs.get("alt", ""))))
            return False
        element.attrs.setdefault("alt", "")
    return True
