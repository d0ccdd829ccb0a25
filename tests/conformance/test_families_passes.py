"""Every family: what sublayers add, resumed passes, answers in batches."""

from __future__ import annotations

import torch

from tests.helpers.families import model_of
from tests.helpers.family_checks import check
from tests.helpers.family_plain import Plain
from tests.helpers.tiny_facts import capitals
from workbench.language.generation import generate
from workbench.language.scoring import continuation_probabilities, read_logits
from workbench.models.engine import Resumable

FACTS = capitals()


@check("added")
def test_a_layer_adds_what_its_sublayers_put_out(name: str) -> None:
    model = model_of(name)
    engine, plain = Resumable(model), Plain(model, FACTS[0])
    with torch.no_grad():
        stream = engine.whole_stream(plain.ids)[0]
        states = engine.record(engine.embed(plain.ids), ("attn", "mlp")).states
        by_hooks = plain.states(*(("resid", layer) for layer in range(model.shape.n_layers)))
    for layer in range(model.shape.n_layers):
        assert torch.equal(stream[layer], by_hooks["resid", layer])
        added = states["attn", layer] + states["mlp", layer]
        added = model.architecture.traits.residual_scale * added[0]
        torch.testing.assert_close(stream[layer + 1] - stream[layer], added, atol=1e-4, rtol=1e-4)


@check("resumed")
def test_resumed_passes_are_whole_passes(name: str) -> None:
    model = model_of(name)
    engine, ids = Resumable(model), torch.tensor([model.token_ids(fact.prompt) for fact in FACTS])
    with torch.no_grad():
        wanted = model.runner(ids).logits
        stream = engine.whole_stream(ids)
        embedded = engine.embed(ids)
        assert torch.equal(embedded, stream[:, 0])
        for layer in range(model.shape.n_layers):
            close(engine.run(stream[:, layer], start=layer), wanted[:, -1])
        close(engine.unembed(stream[:, -1]), wanted)
        rows, positions = torch.tensor([0, 2, 4]), torch.tensor([4, 3, 4])
        close(engine.logits_at(embedded, rows, positions, start=0), wanted[rows, positions])
        shared = stream[:1, :, :2]
        for layer in range(model.shape.n_layers):
            prefix = engine.resumed_keys_values(shared[:, layer], layer)
            close(engine.run(stream[:, layer, 2:], start=layer, prefix=prefix), wanted[:, -1])
            found = engine.logits_at(stream[:, layer, 2:], rows, positions - 2, start=layer, prefix=prefix)
            close(found, wanted[rows, positions])
        recording, before = engine.record_from(3, embedded[:1], ("mlp",))
        close(recording.logits, wanted[:1, -1])
        close(engine.run(embedded[:1, 3:], prefix=before), wanted[:1, -1])


@check("answers")
def test_answers_of_batches_are_those_of_single_texts(name: str) -> None:
    model = model_of(name)
    texts = ("The capital of France is", "The capital of Japan is in the city of", "The city", "The capital of")
    prompts = [model.token_ids(text) for text in texts]
    said: list[list[int]] = []
    with torch.no_grad():
        for prompt in prompts:
            tokens = list(prompt)
            for _ in range(4):
                tokens.append(int(model.runner(torch.tensor([tokens])).logits[0, -1].argmax()))
            said.append(tokens[len(prompt) :])
        assert [list(c.token_ids) for c in generate(model, prompts, max_new_tokens=4, stop=False)] == said
        for i, logits in read_logits(model, prompts, said, 48):
            whole = model.runner(torch.tensor([[*prompts[i], *said[i]]])).logits[0, len(prompts[i]) - 1 :]
            close(logits, whole)
        found = continuation_probabilities(model, list(zip(prompts, said, strict=True)))
        for i, probability in enumerate(found):
            whole = model.runner(torch.tensor([[*prompts[i], *said[i]]])).logits[0].log_softmax(-1)
            at = range(len(prompts[i]) - 1, len(prompts[i]) - 1 + len(said[i]))
            wanted = sum(float(whole[place, token]) for place, token in zip(at, said[i], strict=True))
            assert abs(torch.tensor(probability).log() - wanted) < 1e-3


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=5e-4, rtol=1e-4)
