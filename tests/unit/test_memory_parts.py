"""What memories are made of, by hand: how a codebook grows, who is routed where, margins, merging, modules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import workbench as wb
from tests.helpers.deltas import IDS, KINDS, assert_near, edit_with, logits_of, model_of
from tests.helpers.tiny import tiny_llama
from workbench.editing.memories.codebook import KeyBook
from workbench.editing.memories.margins import Margins, distances, ties_merge
from workbench.models.deltas import Mounted, put_under_gates
from workbench.models.deltas.remembering import Remembering, remember, write_strengths
from workbench.models.deltas.routing import chosen_shard, nearest_key
from workbench.models.folded import folded
from workbench.models.views import shared_view
from workbench.types import Codebook, MemoryDelta, SideMemory

ROME, PARIS = (5, 6), (7,)


def at(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)


def book_of(*edits: tuple[Tensor, tuple[int, ...]], radius: float = 1.0, grow: bool = True) -> KeyBook:
    book = KeyBook(radius, grow=grow)
    for state, label in edits:
        book.add(state, label)
    return book


def radii(book: KeyBook) -> list[float]:
    return [round(radius, 3) for radius in book.radii]


def test_a_far_state_becomes_a_key() -> None:
    book = book_of((at(0, 0), ROME), (at(2.1, 0), ROME))
    assert radii(book) == [1.0, 1.0] and book.labels == [ROME, ROME]


def test_a_near_state_of_the_same_label_widens_the_radius() -> None:
    """1.5 is nearer than the two radii together; 0.4 is inside already."""
    assert radii(book_of((at(0, 0), ROME), (at(0, 1.5), ROME))) == [1.5]
    assert radii(book_of((at(0, 0), ROME), (at(0, 0.4), ROME))) == [1.0]
    apart = book_of((at(0, 0), ROME), (at(0, 1.5), ROME), (at(0, 0.4), ROME), grow=False)
    assert radii(apart) == [1.0, 1.0] and len(apart.keys) == 2


def test_a_widened_key_covers_the_state_that_widened_it() -> None:
    book = book_of((at(0, 0), ROME), (at(0.3, 1.1), ROME))
    key, fires = nearest_key(at(0.3, 1.1)[None], torch.stack(book.keys), torch.tensor(book.radii))
    assert (int(key), bool(fires)) == (0, True)


def test_a_near_state_of_another_label_splits_the_ball() -> None:
    book = book_of((at(0, 0), ROME), (at(0, 1.2), PARIS))
    assert radii(book) == [0.6, 0.6] and book.radii[0] < 0.6 and book.labels == [ROME, PARIS]
    states = torch.stack([at(0, 0.599), at(0, 0.601), at(0, -0.7), at(0, 1.9)])
    key, fires = nearest_key(states, torch.stack(book.keys), torch.tensor(book.radii))
    assert key[:2].tolist() == [0, 1] and fires.tolist() == [True, True, False, False]


def test_a_split_never_widens_a_ball() -> None:
    """The second split is at 0.9 from a key whose radius is 0.2 by then: half of it is more than that."""
    book = book_of((at(0, 0), ROME), (at(0.4, 0), PARIS), (at(-0.9, 0), PARIS))
    assert radii(book) == [0.2, 0.2, 0.45]


def test_the_same_state_taught_again_is_taken_over() -> None:
    book = book_of((at(0, 0), ROME), (at(0, 0), PARIS))
    assert radii(book) == [1.0] and book.labels == [PARIS]


def test_labels_are_compared_token_by_token() -> None:
    """Both have the mean 2."""
    assert len(book_of((at(0, 0), (1, 3)), (at(0, 0.5), (2, 2))).keys) == 2
    assert len(book_of((at(0, 0), (1, 3)), (at(0, 0.5), (1, 3))).keys) == 1


def test_a_token_goes_through_the_farthest_shard_that_reaches_its_threshold() -> None:
    moves = torch.tensor([[[3.0, 4.0], [3.0, 4.0], [0.0, 1.0]], [[6.0, 8.0], [0.0, 6.0], [0.0, 1.0]]])
    shard, fires = chosen_shard(moves, torch.tensor([5.0, 8.0]))  # distances 5, 5, 1 and 10, 6, 1
    assert shard[:2].tolist() == [1, 0] and fires.tolist() == [True, True, False]


WEIGHT = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
STATES = torch.tensor([[[1.0, 1.0, 0.0], [0.0, 0.0, 3.0]]])
BOOK = Codebook(torch.tensor([[1.0, 1.0, 0.1]]), torch.tensor([[9.0, -9.0]]), torch.tensor([0.2]), (ROME,))
SIDE = SideMemory((torch.tensor([2, 4]),), (torch.tensor([4.0, 1.0]),), (2, 3), torch.tensor([2.0]))
"""D is [[0, 0, 4], [0, 1, 0]]: distances of the two states are 1 and 12."""


def module_of(kind: str) -> Any:
    module = nn.Linear(3, 2, bias=False) if kind == "linear" else Conv1D(2, 3)
    with torch.no_grad():
        module.weight.copy_(WEIGHT if kind == "linear" else WEIGHT.T)
    return module.requires_grad_(False)


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_what_a_module_with_memories_puts_out(kind: str) -> None:
    """The module alone gives [1, 2] and [0, 0]."""
    alone = module_of(kind)
    assert alone(STATES)[0].tolist() == [[1.0, 2.0], [0.0, 0.0]]
    assert remember(module_of(kind), [BOOK])(STATES)[0].tolist() == [[9.0, -9.0], [0.0, 0.0]]
    assert remember(module_of(kind), [SIDE])(STATES)[0].tolist() == [[1.0, 2.0], [12.0, 0.0]]
    everywhere = Codebook(torch.zeros(1, 3), torch.tensor([[1.0, 1.0]]), torch.tensor([9.0]), (ROME,), strength=0.5)
    both = remember(module_of(kind), [SIDE, everywhere])
    assert both(STATES)[0].tolist() == [[1.0, 1.5], [6.5, 0.5]], "the later one takes what the earlier one gives"
    both = remember(remember(module_of(kind), [everywhere]), [SIDE])
    assert both(STATES)[0].tolist() == [[1.0, 1.5], [12.5, 0.5]]
    assert type(both).__mro__[1] is Remembering and isinstance(both, type(alone))


def test_strength_0_is_the_module_and_half_is_half() -> None:
    module = remember(module_of("linear"), [BOOK, SIDE])
    off = [Codebook(BOOK.keys, BOOK.values, BOOK.radii, BOOK.labels, strength=s) for s in (0.0, 0.5)]
    side = [SideMemory(SIDE.index, SIDE.weights, SIDE.shape, SIDE.thresholds, s) for s in (0.0, 0.5)]
    write_strengths(module, [off[0], side[0]])
    assert torch.equal(module(STATES), module_of("linear")(STATES))
    write_strengths(module, [off[1], side[1]])
    assert module(STATES)[0].tolist() == [[5.0, -3.5], [6.0, 0.0]]


def test_a_codebook_may_read_some_inputs_only() -> None:
    """The third input, in which the first state differs from the key, is not read."""
    columns = torch.tensor([0, 1])
    book = Codebook(torch.tensor([[1.0, 1.0]]), torch.tensor([[9.0, -9.0]]), torch.tensor([0.05]), (ROME,), columns)
    states = STATES + torch.tensor([0.0, 0.0, 100.0])
    assert remember(module_of("linear"), [book])(states)[0].tolist() == [[9.0, -9.0], [0.0, 0.0]]


def test_views_share_a_memory_and_copies_turn_with_it() -> None:
    hf = tiny_llama()
    view = shared_view(hf)
    module: Any = view.get_submodule("model.layers.1.mlp.down_proj")
    plain = type(hf.get_submodule("model.layers.1.mlp.down_proj"))
    values = torch.ones(1, 42)
    book = Codebook(torch.zeros(1, 56), values, torch.tensor([1e6]), (ROME,))
    remember(module, [book])
    again = shared_view(view).get_submodule("model.layers.1.mlp.down_proj")
    states = torch.randn(2, 5, 56)
    assert torch.equal(again(states), values.expand(2, 5, 42))
    write_strengths(module, [Codebook(book.keys, values, book.radii, book.labels, strength=0.0)])
    assert torch.equal(again(states), hf.get_submodule("model.layers.1.mlp.down_proj")(states))
    assert type(hf.get_submodule("model.layers.1.mlp.down_proj")) is plain and "memory" not in " ".join(
        view.state_dict()
    )
    assert isinstance(copy.deepcopy(module), Remembering)
    with pytest.raises(ValueError, match="plain Linear or Conv1D, and this is a Embedding"):
        remember(view.get_input_embeddings(), [book])


def test_a_module_with_a_hook_of_accelerate_remembers_too() -> None:
    """The hook has put a function of its own in the place of the module's forward."""
    from accelerate.hooks import ModelHook, add_hook_to_module

    class Doubling(ModelHook):
        def post_forward(self, module: Any, output: Any) -> Any:
            return 2 * output

    holder = nn.Sequential(add_hook_to_module(module_of("linear"), Doubling()))
    view = copy.deepcopy(holder)
    remember(view[0], [BOOK])
    assert view(STATES)[0].tolist() == [[18.0, -18.0], [0.0, 0.0]]
    assert holder(STATES)[0].tolist() == [[2.0, 4.0], [0.0, 0.0]]


@pytest.mark.parametrize("kind", ["gates", "low-rank", "gates, then low-rank"])
@pytest.mark.parametrize("name", ["llama, tied", "gpt2, tied"])
def test_adapters_that_are_trained_lie_under_the_memories_as_applied_ones_do(name: str, kind: str) -> None:
    model = model_of(name)
    memory, adapters = KINDS["memory"](model, 0), KINDS[kind](model, 1)
    under, on_top = edit_with(model, memory), edit_with(model, adapters)
    with wb.applied(model, under) as edited:
        on_folded, on_view = shared_view(folded(edited).hf), shared_view(model.hf)
    put_under_gates(on_view, model.architecture, memory)
    expected = logits_of(model, under, on_top)
    assert (expected - logits_of(model, on_top)).abs().max() > 0.1 < (expected - logits_of(model, under)).abs().max()
    for view in (on_folded, on_view):
        trained = Mounted(view, model.architecture, adapters)
        with torch.no_grad():
            assert_near(view(IDS).logits, expected)
            assert_near(shared_view(view)(IDS).logits, expected)
            trained.write(adapters.scaled(0.0))
            assert_near(view(IDS).logits, logits_of(model, under))


def test_margins_by_hand() -> None:
    """Inside 4: others at most 1, own at least 4, pairs at least 2 apart. Each part counts its violators only."""
    loss = Margins(4.0).loss(torch.tensor([5.0, 3.0]), torch.tensor([0.5, 2.0]))
    outside = (2 / 4 - 0.25) / 1
    inside = (1 - 3 / 4) / 1
    pairs = (0.5 - (3 - 2) / 4) / 1
    assert float(loss) == pytest.approx(outside + inside + pairs)
    assert float(Margins(4.0).loss(torch.tensor([8.0]), torch.tensor([1.0, 0.0, 1.0]))) == 0.0


def test_distances_have_a_gradient_at_0() -> None:
    weights = torch.zeros(2, 3, requires_grad=True)
    distances(torch.ones(4, 3), weights).sum().backward()
    assert weights.grad is not None and torch.isfinite(weights.grad).all()
    assert distances(STATES[0], SIDE.dense()[0]).tolist() == pytest.approx([1.0, 12.0])


def test_ties_keeps_the_largest_elects_a_sign_and_averages() -> None:
    shards = torch.tensor([[[4.0, 1.0, 0.0, 5.0]], [[2.0, -3.0, 0.5, -6.0]]])
    # 2 of 3 and 2 of 4 stay: 4, 5 and -3, -6; of 5 and -6 the sum is negative.
    assert ties_merge(shards, 0.5).tolist() == [[4.0, -3.0, 0.0, -6.0]]
    assert torch.equal(ties_merge(shards, 1.0), torch.tensor([[3.0, -3.0, 0.5, -6.0]]))


def test_memories_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"keys \[n, inputs\], values \[n, d_out\] and radii \[n\]"):
        Codebook(torch.zeros(2, 3), torch.zeros(1, 2), torch.zeros(2), (ROME, ROME))
    with pytest.raises(ValueError, match="A codebook of 1 keys has 1 labels, got 2"):
        Codebook(torch.zeros(1, 3), torch.zeros(1, 2), torch.zeros(1), (ROME, ROME))
    with pytest.raises(ValueError, match="places outside its 2 x 3 weights"):
        SideMemory((torch.tensor([6]),), (torch.ones(1),), (2, 3), torch.ones(1))
    with pytest.raises(ValueError, match="strength must be a finite number"):
        SideMemory(SIDE.index, SIDE.weights, SIDE.shape, SIDE.thresholds, float("nan"))
    with pytest.raises(ValueError, match="modules of different sizes"):
        MemoryDelta({(0, "mlp.down_proj"): (BOOK, Codebook(BOOK.keys, torch.zeros(1, 5), BOOK.radii, BOOK.labels))})


def test_what_a_memory_says_of_itself() -> None:
    delta = MemoryDelta({(1, "mlp.down_proj"): (SIDE,), (0, "mlp.down_proj"): (BOOK,)})
    assert delta.words() == "a codebook of 1 key and a side memory of 2 weights beside 2 modules"
    assert (delta.lowest_layer, delta.n_moved()) == (0, 9)
    assert MemoryDelta({(1, "mlp.down_proj"): (SIDE,)}).scaled(0.5).largest_move() == 2.0
    assert delta.largest_move() != delta.largest_move() and delta.scaled(0.0).largest_move() == 0.0
