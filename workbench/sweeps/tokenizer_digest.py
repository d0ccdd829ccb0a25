"""What a model's texts become tokens by, as a checksum: another chat template gives other results."""

from __future__ import annotations

import json
from typing import Any

from workbench.files.checked_json import sha256
from workbench.models.load import LoadedModel


def tokenizer_digest(model: LoadedModel) -> str:
    """The checksum of a model's tokenizer and chat template, and of the tokens that begin and end a text.

    Args:
        model: The model. How its tokenizer pads and cuts, which changes while it is used, does not count.
    """
    tokenizer = model.tokenizer
    ends = [getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos")]
    ends.append(getattr(model.hf.generation_config, "eos_token_id", None))
    return sha256(json.dumps([_form(tokenizer), model.chat_template, ends], sort_keys=True, default=str).encode())


def _form(tokenizer: Any) -> Any:
    """How text is cut into tokens, as JSON values."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # written in Python, of which the vocabulary is known alone
        vocabulary = getattr(tokenizer, "get_vocab", dict)()
        return [getattr(tokenizer, "add_bos_token", None), vocabulary]
    return {name: part for name, part in json.loads(backend.to_str()).items() if name not in ("padding", "truncation")}
