"""Every family: keys, added vectors and writes of closed forms against plain hooks; what is added where a norm follows;
what mixtures of experts are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.deltas import assert_near, edit_with
from tests.helpers.families import TINY, model_of
from tests.helpers.tiny_facts import capitals
from tests.helpers.traces import hooked
from workbench.editing.solved import formulas
from workbench.editing.solved.formulas import Metric
from workbench.editing.solved.keys import PreparedContexts, keys_at
from workbench.editing.solved.places import Context, context_of
from workbench.editing.solved.spots import Place, Spot, engine_of, key_spot, module_name
from workbench.editing.solved.write import Solved, Writer, raw_change
from workbench.editing.training.rows import Row
from workbench.language.prompts import answer_ids, prompt_ids
from workbench.models.load import LoadedModel
from workbench.types import Edit, LowRankDelta

FACTS = capitals()
FAMILIES = pytest.mark.parametrize("name", TINY)
LAYER = 1


def contexts(model: LoadedModel) -> list[Context]:
    """Clozes of two facts, of unlike length, with their targets."""
    out: list[Context] = []
    for i, (fact, lead) in enumerate([(FACTS[0], "The capital of"), (FACTS[2], "What city is the capital of")]):
        prompt = prompt_ids(model, f"{lead} {fact.subject} is", "cloze")
        row = Row(tuple(prompt), tuple(answer_ids(model, fact.target, "cloze")))
        out.append(context_of(model, row, fact.subject, form="cloze", fact=i))
    return out


def places_of(model: LoadedModel) -> list[Place]:
    """The output projections of a layer that a family has."""
    return [Place(LAYER, "attn"), *([] if model.shape.no_neurons else [Place(LAYER, "mlp")])]


def seen(model: LoadedModel, context: Context, name: str, *, on_input: bool, hf: Any = None) -> Tensor:
    """What a module reads or gives out at the subject, by a plain hook, [width]."""
    caught: list[Tensor] = []

    def catch(state: Tensor) -> Tensor:
        caught.append(state)
        return state

    with hooked(hf or model.hf, {name: (on_input, catch)}), torch.no_grad():
        (hf or model.hf)(torch.tensor([context.ids]))
    return caught[0].reshape(len(context.ids), -1)[context.subject[0]].double()


@FAMILIES
def test_keys_and_outputs_are_those_of_plain_hooks(name: str) -> None:
    model = model_of(name)
    every = contexts(model)
    places = places_of(model)
    keys = keys_at(model, every, places)
    prepared = PreparedContexts(model, every, LAYER)
    states = prepared.read([Spot(place.module, LAYER) for place in places] + [Spot("resid", LAYER)])
    for place in places:
        module = module_name(model.architecture, place)
        for i, context in enumerate(every):
            assert_near(keys[place][i], seen(model, context, module, on_input=True))
            assert_near(states[Spot(place.module, LAYER)][i], seen(model, context, module, on_input=False))
    after = f"{model.architecture.family.layers}.{LAYER + 1}"
    for i, context in enumerate(every):
        assert_near(states[Spot("resid", LAYER)][i], seen(model, context, after, on_input=True))


@FAMILIES
def test_rome_gives_the_value_at_the_key(name: str) -> None:
    """With the edit applied, every output projection gives v* at the key, and the base is as it was."""
    model = model_of(name)
    context = contexts(model)[0]
    for place in places_of(model):
        module = module_name(model.architecture, place)
        before = model.fingerprint
        (key,) = keys_at(model, [context], [place])[place]
        now = seen(model, context, module, on_input=False)
        wanted = torch.randn(len(now), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        factors = formulas.rome(Metric.identity(len(key)), key, wanted - now)
        writer = Writer(model)
        writer.write(place, Solved(factors, torch.ones(1)))
        assert_near(seen(model, context, module, on_input=False, hf=writer.view), wanted)
        with wb.applied(model, edit_with(model, writer.delta)) as edited:
            assert_near(seen(model, context, module, on_input=False, hf=edited.hf), wanted)
        weight = model.hf.get_submodule(module).weight.detach().double()
        u, v = factors
        assert writer.writes[0].relative_norm == pytest.approx(float((u @ v).norm() / weight.norm()), rel=1e-6)
        assert model.fingerprint == before


@FAMILIES
def test_a_change_of_the_stream_is_written_where_it_is_added(name: str) -> None:
    """Where a norm follows, what is added gets the value that the norm can give; elsewhere any."""
    model = model_of(name)
    if model.shape.no_neurons:
        with pytest.raises(ValueError, match=r"no 'post' projection.*mixture of experts"):
            module_name(model.architecture, Place(LAYER, "mlp"))
        return
    context = contexts(model)[0]
    place, after = Place(LAYER, "mlp"), Spot("resid", LAYER)
    prepared = PreparedContexts(model, [context], LAYER)
    states = prepared.read([Spot("mlp", LAYER), after, key_spot(place)])
    out = states[Spot("mlp", LAYER)]
    change = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    family = model.architecture.family
    if model.architecture.traits.post_norms:  # reachable: what the norm gives of another state
        norm = model.hf.get_submodule(f"{family.layers}.{LAYER}.{family.mlp}")
        with torch.no_grad():
            change = (norm(change.float()) - norm(out.float())).double()
    raw = raw_change(model, place, out, change)
    factors = formulas.rome(Metric.identity(model.shape.d_mlp), states[key_spot(place)][0], raw[0])
    writer = Writer(model)
    writer.write(place, Solved(factors, torch.ones(1)))
    found = prepared.read([after], view=writer.view)[after] - states[after]
    assert_near(found, change)


@FAMILIES
def test_a_vector_is_added_at_the_subject_alone(name: str) -> None:
    model = model_of(name)
    context = contexts(model)[0]
    engine = engine_of(model)
    prepared = PreparedContexts(model, [context], LAYER)
    (group,) = prepared.groups
    for place in places_of(model):
        module = module_name(model.architecture, place)
        width = len(seen(model, context, module, on_input=False))
        vector = torch.randn(width, generator=torch.Generator().manual_seed(5))
        at = torch.zeros(len(context.ids), 1)
        at[context.subject[0]] = 1
        shape = (1, len(context.ids), width)

        def add(state: Tensor, vector: Tensor = vector, at: Tensor = at, shape: Any = shape) -> Tensor:
            return (state.reshape(shape) + at * vector).reshape(state.shape)

        with torch.no_grad():
            with hooked(model.hf, {module: (False, add)}):
                plain = model.hf(torch.tensor([context.ids])).logits[0, -1]
            batch, prefix = group.prepared.batch(group.rows), group.prefix(engine)
            own = at[group.prepared.shared :]
            with engine.changing({Spot(place.module, LAYER): lambda s, v=vector, own=own: s + own * v}):
                found = engine.logits_at(batch.resid, batch.row, batch.position, start=LAYER, prefix=prefix)
        assert_near(found[0], plain)


@pytest.mark.parametrize(
    ("name", "selection"),
    [("gemma 2", None), ("granite", "L1MLP L2H3"), ("gpt2", "L0N3 L0N5 L1H2"), ("mixtral", "L1H1 L1H4 L2H0")],
)
def test_memit_in_families(name: str, selection: str | None) -> None:
    model = model_of(name)
    recipe = wb.recipes.MEMIT(layers=(0, 1), steps=2, covariance="identity", contexts=False, rank=None)
    given: dict[str, Any] = {"recipe": recipe, "pool": FACTS, "progress": False}
    edit: Edit = wb.rewrite(model, FACTS[0], selection, **given)
    assert wb.rewrite(model, FACTS[0], selection, **given).id == edit.id
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta)
    for write in edit.writes:
        v = delta.factors[write.layer, write.name][1]
        assert write.residual_before is not None and write.residual_after is not None
        if write.columns is not None:
            outside = [i for i in range(v.shape[1]) if i not in write.columns]
            assert bool((v[:, outside] == 0).all())
    assert len(edit.writes) == len(delta.factors)
