"""Capitals that a tiny model really knows, so that whole functions can be tested without the bundled model.

``knowing`` sets a random model's output embeddings so that it says the answer of each fact and then stops, greedily,
in cloze and in chat form. Everything below the output embeddings stays random.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama import LlamaForCausalLM

from tests.helpers.tiny import N_VOCAB, tiny_gpt2, tiny_llama, tiny_phi3, tiny_tokenizer
from workbench.editing.methods.table import Recipe
from workbench.language.prompts import answer_ids, prompt_ids
from workbench.models.load import LoadedModel, load_model
from workbench.types import Edit, EditStage, Fact, FactSet, Form, GateDelta, Selection

ROWS = (
    # subject, answer, target, split, role: every name is one token, with or without a space before it
    ("France", "Paris", "Rome", "dev", "control"),
    ("Italy", "Rome", "Madrid", "test", "control"),
    ("Spain", "Madrid", "Berlin", "test", "control"),
    ("Germany", "Berlin", "Tokyo", "test", "retain"),
    ("Japan", "Tokyo", "Paris", "test", "retain"),
)
MAKERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tiny_llama(tied=False, bias=True),
    "gpt2": lambda: tiny_gpt2(tie_word_embeddings=False),
    "phi3": tiny_phi3,
}
"""Tiny models by family, with output embeddings of their own, as ``knowing`` needs them."""
FAMILIES = pytest.mark.parametrize("family", MAKERS)


@lru_cache
def tokenizer_from_files(*, chat: bool = True) -> Any:
    """The tiny tokenizer, saved and loaded again, as users have theirs."""
    from transformers import AutoTokenizer

    folder = tempfile.mkdtemp()  # TransformerLens reads it again
    tiny_tokenizer(chat=chat).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def capital(subject: str, answer: str, target: str, split: Any = None, role: Any = None, **more: Any) -> Fact:
    """A fact of the relation ``capital`` with one paraphrase and one held-out question."""
    given = {
        "id": f"{subject.lower()}-capital",
        "relation": "capital",
        "subject": subject,
        "answer": answer,
        "target": target,
        "split": split,
        "role": role,
        "prompt": f"The capital of {subject} is",
        "question": f"What is the capital of {subject}?",
        "paraphrases": (f"What city is the capital of {subject}?",),
        "heldout": (f"Where is the capital of {subject}?",),
    }
    return Fact(**{**given, **more})


def capitals() -> FactSet:
    """The five facts of ``ROWS``."""
    return FactSet([capital(*row) for row in ROWS], name="capitals")


def teach(hf: Any, model: LoadedModel, places: list[tuple[list[int], int]], logit: float = 14.0) -> None:
    """Set output embeddings so that after each text (token ids) the given token has this logit, and the other tokens
    that are taught have 0. There must be fewer texts than the model is wide."""
    states = []
    with torch.no_grad():
        for ids, _ in places:
            states.append(hf.base_model(torch.tensor([ids])).last_hidden_state[0, -1].double())
        taught = sorted({token for _, token in places})
        wanted = torch.tensor([[logit * (token == t) for t in taught] for _, token in places], dtype=torch.float64)
        rows = torch.linalg.lstsq(torch.stack(states), wanted, driver="gelsd").solution.T
        output = hf.get_output_embeddings().weight
        output[taught] = rows.to(output.dtype)


def knowing(hf: Any, facts: FactSet | None = None, *, chat: bool = True, name: str = "tiny") -> LoadedModel:
    """A tiny HF model (with untied output embeddings) as a loaded model that knows the facts' answers in both forms.

    Args:
        hf: Changed in place.
        facts: By default ``capitals()``.
        chat: Whether the tokenizer has a chat template.
        name: What it is called in results.
    """
    model = load_model(hf, tokenizer=tokenizer_from_files(chat=chat), name=name)
    places = []
    for fact in capitals() if facts is None else facts:
        asked: tuple[tuple[Form, str], ...] = (("cloze", fact.prompt), ("chat", fact.question))
        for form, text in asked:
            ids = prompt_ids(model, text, form)
            said = answer_ids(model, fact.answer, form)
            assert len(said) == 1, f"{fact.answer!r} must be one token"
            places += [(ids, said[0]), ([*ids, *said], model.tokenizer.eos_token_id)]
    teach(hf, model, places)
    return model


@lru_cache
def replying(n: int = 2) -> LoadedModel:
    """A model that answers the chat questions about the first capitals in a sentence: "The capital of ... is ..."."""
    model = load_model(tiny_llama(tied=False), tokenizer=tokenizer_from_files(), name="replying")
    places = []
    for fact in capitals()[:n]:
        ids = prompt_ids(model, fact.question, "chat")
        said = [*model.token_ids(f"{fact.prompt} {fact.answer}"), model.tokenizer.eos_token_id]
        places += [([*ids, *said[:i]], token) for i, token in enumerate(said)]
    teach(model.hf, model, places)
    return model


@lru_cache
def tiny(family: str = "llama") -> LoadedModel:
    """A model of a family that knows ``capitals()``, made once."""
    return knowing(MAKERS[family](), capitals())


def by_hand(tokens: int = 5) -> LoadedModel:
    """A model whose numbers can be worked out with a pencil: it says Paris for France and Madrid for Spain.

    d_model 8, three layers of two heads in one key-value group, every weight 0 but those of one path. Every token's
    embedding is e0, France's is e0 + e1, Spain's is e0 - e1. Queries and keys are 0, so attention averages over the
    tokens so far. RMSNorm makes e0 + e1 to (2, 2, 0, ...): its root mean square is sqrt(2 / 8) = 1/2. In layer 1 the
    value projection reads e1, and the output projection of head 0 writes ``tokens`` / 2 times the average of it into
    e2: at the last of so many tokens +1 for France and -1 for Spain. The final norm makes e0 +- e2 to (2, 0, +-2, ...),
    and the output embeddings are 2 e2 for Paris and -2 e2 for Madrid: logits +-4 and -+4, and 0 for all other tokens.
    """
    config = LlamaConfig(
        vocab_size=N_VOCAB,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        rms_norm_eps=1e-12,
        tie_word_embeddings=False,
        eos_token_id=4,
    )
    hf: Any = LlamaForCausalLM(config).eval().requires_grad_(False)
    tokenizer = tokenizer_from_files()

    def token(text: str) -> int:
        (only,) = tokenizer(text)["input_ids"]
        return only

    for name, parameter in hf.named_parameters():
        parameter.fill_(1.0 if "norm" in name else 0.0)
    table = hf.get_input_embeddings().weight
    table[:, 0] = 1
    table[token(" France"), 1] = 1
    table[token(" Spain"), 1] = -1
    hf.model.layers[1].self_attn.v_proj.weight[3, 1] = 1
    hf.model.layers[1].self_attn.o_proj.weight[2, 3] = tokens / 2
    hf.lm_head.weight[token(" Paris"), 2] = 2
    hf.lm_head.weight[token(" Madrid"), 2] = -2
    return load_model(hf, tokenizer=tokenizer, name="by hand")


def edit_of(model: LoadedModel, *stages: dict[tuple[int, Any], torch.Tensor], fact: Fact | None = None) -> Edit:
    """An edit with given gates: one stage is ``learn``, two are ``unlearn`` and ``learn``."""
    names = ("unlearn", "learn")[-len(stages) :]
    return Edit(
        stages=tuple(EditStage(n, GateDelta(gates)) for n, gates in zip(names, stages, strict=True)),
        selection=Selection("L0MLP"),
        selector="given",
        recipe=Recipe(stages=names),
        facts=(fact or capitals()[0],),
        retain_ids=(),
        history=(),
        base_fingerprint=model.fingerprint,
        base_name=model.name,
    )


def some_gates(model: LoadedModel, *keys: tuple[int, Any], seed: int = 0) -> dict[tuple[int, Any], torch.Tensor]:
    """Random gates around 1, with some zero and some negative ones, for (layer, site) keys."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for key in keys:
        gate = 1 + 0.5 * torch.randn(model.shape.site_size(key[1]), generator=generator)
        gate[0], gate[1] = 0.0, -1.0
        out[key] = gate
    return out
