"""Components and selections: text, existence, set operators, gate counts, random controls."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.mistyped import mistyped
from workbench.types import Component, ModelShape, Selection, all_components
from workbench.types.selection import INDEXED, KINDS, Kind

# z and q: 6 * 8 = 48 entries; k and v: 2 * 8 = 16; MLP: 56. No two sizes agree.
Where = Literal["same-layers", "anywhere"]
SHAPE = ModelShape(n_layers=3, n_heads=6, n_kv_heads=2, d_head=8, d_mlp=56, d_model=42, d_vocab=100)


@st.composite
def components(draw: st.DrawFn) -> Component:
    kind = draw(st.sampled_from(KINDS))
    index = draw(st.integers(0, 10_000)) if kind in INDEXED else None
    return Component(draw(st.integers(0, 500)), kind, index)


@given(components())
def test_text_round_trip(component: Component) -> None:
    assert Component.parse(str(component)) == component
    assert Component.parse(f"  {component} ") == component
    assert Component.parse(component) is component


@given(st.lists(components(), max_size=12))
def test_selection_round_trips(parts: list[Component]) -> None:
    selection = Selection(parts)
    assert list(selection) == list(dict.fromkeys(parts))
    assert list(Selection.parse(str(selection))) == list(selection)
    assert list(Selection.parse(", ".join(map(str, parts)))) == list(selection)
    assert list(Selection.from_json(selection.to_json())) == list(selection)
    assert Selection.parse(str(selection)) == selection
    assert hash(Selection(reversed(parts))) == hash(selection)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L23H4", Component(23, "H", 4)),
        ("L13MLP", Component(13, "MLP")),
        ("L13N207", Component(13, "N", 207)),
        ("L9ATTN", Component(9, "ATTN")),
        ("L9Q4", Component(9, "Q", 4)),
        ("L9K1", Component(9, "K", 1)),
        ("L9V1", Component(9, "V", 1)),
        ("L9KV1", Component(9, "KV", 1)),
        ("L9GATEUP", Component(9, "GATEUP")),
    ],
)
def test_every_way_of_writing(text: str, expected: Component) -> None:
    assert Component.parse(text) == expected
    assert str(expected) == repr(expected) == text


@pytest.mark.parametrize(
    "text", ["", "H4", "L4", "L4X2", "l4h2", "L4H", "L-1H2", "L4H-2", "L4MLP3", "L4ATTN1", "L4 H2", "L4H2.5", 7, None]
)
def test_bad_texts_show_examples(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a component.*L23H4, L13MLP"):
        Component.parse(mistyped(text))


def test_one_bad_part_spoils_a_selection() -> None:
    with pytest.raises(ValueError, match=r"'L3Z1' is not a component"):
        Selection.parse("L1H1 L3Z1")


def test_bad_components() -> None:
    with pytest.raises(ValueError, match=r"start at 0"):
        Component(-1, "MLP")
    with pytest.raises(ValueError, match=r"start at 0"):
        Component(0, "H", -1)
    with pytest.raises(ValueError, match=r"'H' needs an index"):
        Component(0, "H")
    with pytest.raises(ValueError, match=r"'MLP' takes no index"):
        Component(0, "MLP", 2)
    with pytest.raises(ValueError, match=r"Unknown component kind 'X'"):
        Component(0, mistyped("X"), 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("L3H0", r"L3H0 does not exist: the model has 3 layers \(L0 to L2\)"),
        ("L3MLP", "3 layers"),
        ("L2H6", "query head indices run from 0 to 5"),
        ("L2Q6", "indices run from 0 to 5"),
        ("L0N56", "MLP neuron indices run from 0 to 55"),
        ("L0KV6", "key-value group indices run from 0 to 1"),
    ],
)
def test_components_that_the_model_lacks(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Selection(text).entries(SHAPE)


@pytest.mark.parametrize("kind", ["K", "V", "KV"])
def test_a_head_number_for_a_group_is_explained(kind: str) -> None:
    """Query head 4 of 6 in 2 groups reads group 1, which heads 3, 4 and 5 share."""
    with pytest.raises(ValueError) as caught:
        Component.parse(f"L1{kind}4").check(SHAPE)
    message = str(caught.value)
    assert "6 query heads but only 2 key-value groups (0 to 1)" in message
    assert f"Query head 4 reads group 1: write L1{kind}1" in message
    assert "3, 4, 5" in message
    assert "L1H4 for the query head" in message


def test_groups_and_heads() -> None:
    assert [SHAPE.group_of(h) for h in range(6)] == [0, 0, 0, 1, 1, 1]
    assert SHAPE.heads_of(0) == (0, 1, 2)
    assert SHAPE.heads_of(1) == (3, 4, 5)


def test_require_head() -> None:
    assert Component.parse("L1H4").require_head(SHAPE) == 4
    assert Component.parse("L1Q5").require_head(SHAPE) == 5
    for text in ("L1K1", "L1V1", "L1KV1"):
        with pytest.raises(ValueError, match=rf"{text} is a key-value group.*shared by L1H3, L1H4, L1H5"):
            Component.parse(text).require_head(SHAPE)
    for text in ("L1MLP", "L1N3", "L1ATTN", "L1GATEUP"):
        with pytest.raises(ValueError, match=rf"{text} is not a query head"):
            Component.parse(text).require_head(SHAPE)
    with pytest.raises(ValueError, match=r"does not exist"):
        Component.parse("L1H6").require_head(SHAPE)


def test_set_operators_keep_the_order_of_first_appearance() -> None:
    a, b = Selection("L2H1 L0MLP L1N3"), Selection("L1N3 L0H0 L2H1")
    assert str(a | b) == "L2H1 L0MLP L1N3 L0H0"
    assert str(b | a) == "L1N3 L0H0 L2H1 L0MLP"
    assert str(a & b) == "L2H1 L1N3"
    assert str(a - b) == "L0MLP"
    assert str(a ^ b) == "L0MLP L0H0"
    assert str(a.sorted()) == "L0MLP L1N3 L2H1"
    assert all(isinstance(s, Selection) for s in (a | b, a & b, a - b, a ^ b))
    assert a == Selection("L1N3 L0MLP L2H1")
    assert Selection("L2H1") < a
    assert a.isdisjoint(Selection("L9H9"))


def test_operators_take_texts_and_refuse_strangers() -> None:
    assert str(Selection("L2H1") | ["L0MLP"]) == "L2H1 L0MLP"
    assert str(Selection("L2H1") | "L0MLP") == "L2H1 L0MLP"
    with pytest.raises(ValueError, match=r"not a component"):
        _ = Selection("L2H1") | [3]


def test_membership_and_size() -> None:
    selection = Selection("L2H1 L0MLP L2H1")
    assert len(selection) == 2
    assert "L2H1" in selection
    assert Component(0, "MLP") in selection
    assert "L2H2" not in selection
    assert "nonsense" not in selection
    assert 3 not in selection
    assert not Selection()
    assert not Selection("  ")


def test_json_is_a_plain_list() -> None:
    assert Selection("L2H1 L0MLP").to_json() == '["L2H1", "L0MLP"]'
    with pytest.raises(ValueError, match=r"Expected a JSON list of component names, got dict"):
        Selection.from_json('{"L2H1": 1}')
    with pytest.raises(ValueError, match=r"not a component"):
        Selection.from_json("[1, 2]")
    with pytest.raises(ValueError):
        Selection.from_json("L2H1")


@pytest.mark.parametrize(
    ("text", "gates"),
    [
        ("L0H1", 8),
        ("L0Q1", 8),
        ("L0K1", 8),
        ("L0V1", 8),
        ("L0KV1", 16),
        ("L0N3", 1),
        ("L0MLP", 56),
        ("L0GATEUP", 112),
        ("L0ATTN", 48 + 16 + 16 + 48),
        ("L0H1 L1H1", 16),
        ("L0MLP L0N3 L0N55", 56),  # neurons of a whole MLP count once
        ("L0ATTN L0H1 L0Q2 L0KV0", 128),
        ("L0KV1 L0K1 L0V0", 24),
        ("L0H0 L0N0", 9),
        ("", 0),
    ],
)
def test_number_of_gates(text: str, gates: int) -> None:
    assert Selection(text).n_parameters(SHAPE) == gates


def test_entries_by_hand() -> None:
    entries = Selection("L2N7 L1KV1 L0H5 L2N3 L2N7 L0H5").entries(SHAPE)
    assert entries == {
        (0, "z"): tuple(range(40, 48)),
        (1, "k"): tuple(range(8, 16)),
        (1, "v"): tuple(range(8, 16)),
        (2, "post"): (3, 7),
    }
    assert list(entries) == [(0, "z"), (1, "k"), (1, "v"), (2, "post")]


def test_the_papers_recipe_as_a_selection() -> None:
    """Gate, up and down of one MLP; q, k, v and o of one attention layer."""
    sites = {site for _, site in Selection("L1GATEUP L1MLP L2ATTN").entries(SHAPE)}
    assert sites == {"gate", "up", "post", "q", "k", "v", "z"}


@pytest.mark.parametrize(("kind", "n"), [("H", 6), ("Q", 6), ("K", 2), ("V", 2), ("KV", 2), ("N", 56), ("MLP", 1)])
def test_all_components(kind: Kind, n: int) -> None:
    assert len(all_components(SHAPE, kind, 1)) == n
    assert len(set(all_components(SHAPE, kind))) == 3 * n


def kinds(selection: Selection) -> Counter[str]:
    return Counter(c.kind for c in selection)


@given(st.integers(0, 10_000), st.sampled_from(["same-layers", "anywhere"]))
def test_random_controls_have_the_same_kinds_and_other_components(seed: int, where: Where) -> None:
    own = Selection("L0H1 L2H3 L2H4 L1N3 L1N4 L0N55 L1KV0")
    drawn = own.random_like(SHAPE, seed=seed, where=where)
    assert kinds(drawn) == kinds(own)
    assert drawn.n_parameters(SHAPE) == own.n_parameters(SHAPE)
    assert drawn.isdisjoint(own)
    assert list(drawn) == list(drawn.sorted())
    assert drawn == own.random_like(SHAPE, seed=seed, where=where)
    if where == "same-layers":
        assert Counter((c.layer, c.kind) for c in drawn) == Counter((c.layer, c.kind) for c in own)


def test_random_controls_by_seed_and_layer() -> None:
    own = Selection("L0H1 L2H3 L1N3")
    drawn = {str(own.random_like(SHAPE, seed=s)) for s in range(20)}
    assert len(drawn) > 10
    # From anywhere, the layers are not kept:
    assert {c.layer for s in range(20) for c in Selection("L0N1").random_like(SHAPE, seed=s)} == {0, 1, 2}


@given(st.integers(0, 10_000))
def test_a_control_of_one_module_lies_in_one_other_layer(seed: int) -> None:
    own = Selection("L1N3 L1N4 L1N55 L1H2")
    drawn = own.random_like(SHAPE, seed=seed, where="one-layer")
    assert kinds(drawn) == kinds(own) and drawn == own.random_like(SHAPE, seed=seed, where="one-layer")
    assert len({c.layer for c in drawn}) == 1 and all(c.layer != 1 for c in drawn)


def test_random_controls_may_include_the_selection_when_asked() -> None:
    every = Selection(all_components(SHAPE, "KV"))
    assert every.random_like(SHAPE, exclude_self=False) == every


def test_not_enough_to_draw_from() -> None:
    with pytest.raises(ValueError, match=r"Cannot draw 2 other components of kind 'MLP'.*only 1 are left"):
        Selection("L0MLP L1MLP").random_like(SHAPE)
    with pytest.raises(ValueError, match=r"Cannot draw 7 of kind 'H' from one other layer: none has as many"):
        Selection("L0H0 L0H1 L0H2 L0H3 L1H0 L1H1 L1H2").random_like(SHAPE, where="one-layer")
    with pytest.raises(ValueError, match=r"Cannot draw 3 of kind 'MLP' from one other layer"):
        Selection("L0MLP L1MLP L2MLP").random_like(SHAPE, where="one-layer")
    with pytest.raises(ValueError, match=r"kind 'MLP' from layer 0: only 0 are left. Use where='anywhere'"):
        Selection("L0MLP").random_like(SHAPE, where="same-layers")
    with pytest.raises(ValueError, match=r"does not exist"):
        Selection("L0H6").random_like(SHAPE)
