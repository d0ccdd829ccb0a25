"""What is kept for a model goes with it and with its weights."""

from __future__ import annotations

import gc
from weakref import ref

import torch

from tests.helpers.tiny import loaded, tiny_llama
from workbench.models.cache import Remembered


def test_a_model_keeps_its_notebook_until_its_weights_change() -> None:
    notes: Remembered[list[str]] = Remembered(list)
    one, other = loaded(tiny_llama()), loaded(tiny_llama(seed=1))
    notes.of(one).append("one")
    assert (notes.of(one), notes.of(other)) == (["one"], [])
    with torch.no_grad():
        one.hf.get_output_embeddings().weight.neg_()
    assert notes.of(one) == []
    notes.of(one).append("changed")
    notes.clear()
    assert notes.of(one) == []


def test_a_notebook_goes_with_its_model() -> None:
    notes: Remembered[set[int]] = Remembered(set)
    model = loaded(tiny_llama())
    written = ref(notes.of(model))
    assert written() is not None
    del model
    gc.collect()
    assert written() is None
