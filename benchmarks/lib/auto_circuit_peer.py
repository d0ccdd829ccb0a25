"""auto-circuit's scores of all edges of a GPT-2: a process of its own in auto-circuit's environment.

    python -I benchmarks/lib/auto_circuit_peer.py FOLDER

``FOLDER`` has ``weights.safetensors`` (of transformers' ``GPT2Model``) and ``setting.json``: ``config`` (of
``GPT2Config``), ``clean`` and ``corrupted`` (token ids), ``answer`` and ``wrong`` (a token id each), ``threads``. The
process answers each line that it reads with a line of JSON:

* ``score``: scores all edges once; ``{"seconds": ...}`` of processor time.
* ``write``: writes the last scores to ``FOLDER/scores.json``, by edge (``"A0.3->MLP 2"``); ``{"clean", "corrupted"}``,
  the logit differences of the two texts, and ``"versions"`` with ``"licences"`` as the packages' metadata names them.

The scores are the gradients that ``mask_gradient_prune_scores`` gives with ``mask_val=0``: of minus the logit
difference by each edge's mask in the clean run, where a mask of 1 would put the corrupted run's write in the place of
the clean one. Nothing of this project is imported here.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("auto-circuit", "transformer-lens", "torch")


def network(setting: dict[str, Any], weights: Path) -> Any:
    """TransformerLens' model of the weights, with what auto-circuit asks of its settings."""
    import torch
    from safetensors.torch import load_file
    from transformers import GPT2Config, GPT2LMHeadModel

    lens: Any = importlib.import_module("transformer_lens")
    conversions: Any = importlib.import_module("transformer_lens.pretrained.weight_conversions")
    plain: Any = GPT2LMHeadModel(GPT2Config(**setting["config"])).eval()
    plain.transformer.load_state_dict(load_file(weights))
    known = plain.config
    config = lens.HookedTransformerConfig(
        n_layers=known.n_layer,
        n_heads=known.n_head,
        d_model=known.n_embd,
        d_head=known.n_embd // known.n_head,
        d_mlp=4 * known.n_embd,
        n_ctx=known.n_positions,
        d_vocab=known.vocab_size,
        eps=known.layer_norm_epsilon,
        act_fn="gelu_new",
        normalization_type="LN",
        device="cpu",
        use_attn_result=True,
        use_attn_in=True,
        use_split_qkv_input=True,
        use_hook_mlp_in=True,
    )
    model = lens.HookedTransformer(config)
    model.load_state_dict(conversions.convert_gpt2_weights(plain, config), strict=False)
    for parameter in model.eval().parameters():
        parameter.requires_grad_(False)
    ids = torch.tensor([setting["clean"]])
    with torch.no_grad():
        apart = float((model(ids) - plain(ids).logits).abs().max())
    if not apart < 1e-3:
        raise RuntimeError(f"TransformerLens' logits differ from transformers' by {apart:.2g}.")
    return model


def version(package: str) -> tuple[str, str]:
    """A package with its version."""
    return package, metadata(package)["Version"]


def licence(package: str) -> tuple[str, str]:
    """A package with the licence that its metadata names."""
    known = metadata(package).json
    return package, str(known.get("license_expression") or known.get("license") or "none named")


class Peer:
    """auto-circuit on one pair of texts.

    Args:
        folder: As in the module's docstring.
    """

    def __init__(self, folder: Path) -> None:
        import torch

        self.folder, self.scores = folder, dict[str, Any]()
        setting = json.loads((folder / "setting.json").read_text(encoding="utf-8"))
        torch.set_num_threads(setting["threads"])
        self.texts = {name: torch.tensor([setting[name]]) for name in ("clean", "corrupted")}
        self.answers = setting["answer"], setting["wrong"]
        data: Any = importlib.import_module("auto_circuit.data")
        graphs: Any = importlib.import_module("auto_circuit.utils.graph_utils")
        gradients: Any = importlib.import_module("auto_circuit.prune_algos.mask_gradient")
        self._score = gradients.mask_gradient_prune_scores
        self.model = graphs.patchable_model(
            network(setting, folder / "weights.safetensors"),
            factorized=True,
            slice_output="last_seq",
            separate_qkv=True,
            device=torch.device("cpu"),
        )
        answer, wrong = (torch.tensor([token]) for token in self.answers)
        pairs = data.PromptDataset(self.texts["clean"], self.texts["corrupted"], [answer], [wrong])
        self.loader = data.PromptDataLoader(pairs, seq_len=None, diverge_idx=0, batch_size=1, shuffle=False)

    def score(self) -> dict[str, Any]:
        """Score all edges."""
        began = time.process_time()
        self.scores = self._score(self.model, self.loader, None, "logit", "avg_diff", mask_val=0.0)
        return {"seconds": time.process_time() - began}

    def write(self) -> dict[str, Any]:
        """Write the last scores, and say what they are scores of."""
        import torch

        found = {edge.name: float(edge.prune_score(self.scores)) for edge in self.model.edges}
        (self.folder / "scores.json").write_text(json.dumps(found), encoding="utf-8")
        answer, wrong = self.answers
        with torch.no_grad():
            last = {name: self.model(ids)[0, -1] for name, ids in self.texts.items()}
        levels = {name: float(logits[answer] - logits[wrong]) for name, logits in last.items()}
        return levels | {"versions": dict(map(version, PACKAGES)), "licences": dict(map(licence, PACKAGES))}


def main(folder: str) -> None:
    """Answer commands until the input ends."""
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what is printed meanwhile is no answer
        peer = Peer(Path(folder))
        print(json.dumps({"ready": True}), file=out, flush=True)
        for line in sys.stdin:
            answer = {"score": peer.score, "write": peer.write}[line.strip()]()
            print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
