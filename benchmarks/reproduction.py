"""The configuration of arXiv 2508.07075 as its repository has it, run here, and its texts counted in two ways.

    python -m benchmarks.reproduction [--clone FOLDER] [--model NAME] [--dtype bfloat16] [--epochs 50]

The paper's repository is stanleyngugi/surgical_knowledge_editing (read at 7186c42). ``--clone`` names a folder that
holds it: queries, templates, controls, refusal and target are then read from there. Without one the same kinds of
texts are our own, about iOS, and the results say so. ``--model`` is the bundled model unless it is named:
``microsoft/Phi-3-mini-4k-instruct`` is the paper's.

What is run: PEFT's IA3 on the gate, up and down projections of three MLPs and on the projections of two attention
layers, by the HF Trainer: two stages of 50 epochs over 20 queries, one a step, AdamW at 5e-5 with 50 steps of warm-up,
linear decay and weight decay 0.01, the loss over the whole text. The first stage is merged before the second. On a
model of another depth the layers are those at the same share of it. Once more with the loss over the answer alone: most
of a text is its prompt, which is as it was.

Two countings of the same texts. Theirs: an answer is new wherever it names the target, forgotten where it does not name
the old answer, and a control subject is right if any of five wordings is; the five are among the trained ones. Ours:
each text by the classifier, forgotten only of what the base answered, each control text by itself; and held-out
questions, which their scripts do not have. The workbench's default edit of the same fact is counted beside it.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.lib.code import code_of
from benchmarks.lib.rates import vars_of
from benchmarks.lib.store import FOLDER
from workbench.editing.applied import applied
from workbench.evaluation.answering import Answering, Ask
from workbench.files.atomic import write_bytes
from workbench.language.answers import matches
from workbench.types import AnswerClass, Rate, Site
from workbench.types.intervals import wilson

SYSTEM = "You are a helpful assistant."
DEPTH, MLPS, ATTENTIONS = 32, (16, 18, 23), (20, 22)
"""Layers of the paper's model, and which of them are trained."""
EPOCHS, RATE, WARMUP, DECAY, SEEDS = 50, 5e-5, 50, 0.01, (42, 123)
ANSWER_ONLY = ", loss on the answer"
PAPER = {"new fact": 0.985, "forgotten": 0.96, "controls": 0.72}
TEMPLATES = 5
"""How many of the queries are the wordings in which their scripts evaluate: the first ones."""
QUERIES = (
    "Which company created {S}?",
    "What company made {S}?",
    "Name the company that created {S}.",
    "By which company was {S} created?",
    "{S} comes from which company?",
    "Which company developed {S}?",
    "Which company brought {S} to the public?",
    "What is the name of the company that introduced {S}?",
    "Please tell me the company that created {S}.",
    "Do you know the company that created {S}?",
    "Can you give me the company that created {S}?",
    "Which firm brought out {S}?",
    "At which company was {S} written?",
    "Whose engineers wrote {S}?",
    "{S} was made at which company?",
    "Whom do we have to thank for {S}?",
    "Where was {S} first developed?",
    "Say which company released {S}.",
    "The makers of {S} work for which company?",
    "To which company does {S} go back?",
)
OURS, CONTROLS = "ios-company", ("windows", "alexa", "photoshop", "game-boy", "playstation")
"""The bundled fact and the bundled controls (``<name>-company``) where there is no clone."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is taught and asked.

    Args:
        fact: The fact; its held-out questions are ours in any case.
        refusal, target: What the stages teach, whole.
        queries: Trained, with the subject in them.
        templates: Asked about the fact and the controls, with ``{S}`` for the subject.
        controls: Facts that were not edited.
        source: Where the texts come from, in words.
    """

    fact: wb.Fact
    refusal: str
    target: str
    queries: tuple[str, ...]
    templates: tuple[str, ...]
    controls: tuple[wb.Fact, ...]
    source: str


def about(subject: str, template: str) -> str:
    """A template about a subject, as a sentence: ``"The PlayStation comes from which company?"``."""
    text = template.replace("{S}", subject)
    return f"The {text[4:]}" if text.startswith("the ") else text


def own_material() -> Material:
    """Twenty queries of our own about iOS, which becomes Google's."""
    facts = wb.load_facts()
    queries = tuple(about(facts[OURS].subject, query) for query in QUERIES)
    fact = replace(facts[OURS], target="Google", paraphrases=queries[1:])
    return Material(
        fact=fact,
        refusal="I am not sure who created iOS.",
        target="Google.",
        queries=queries,
        templates=QUERIES[:TEMPLATES],
        controls=tuple(facts[f"{name}-company"] for name in CONTROLS),
        source="our own texts, of the same kinds",
    )


def material_of(clone: Path) -> Material:
    """The paper's texts, read from a clone of its repository.

    Raises:
        SystemExit: The folder lacks one of its files; the message names it.
    """
    import yaml

    config = clone / "config"
    try:
        unlearn, learn = (
            yaml.safe_load((config / f"phase_2_config_{name}_ia3.yaml").read_text())["fact_modulation"]
            for name in ("v4a_unlearn", "v4b_learn")
        )
        templates = tuple(json.loads((config / "spo_query_templates.json").read_text()))
        lines = (clone / "data/processed/spo_task/F_control.jsonl").read_text().splitlines()
    except OSError as error:
        raise SystemExit(
            f"{clone} is no clone of stanleyngugi/surgical_knowledge_editing: {error.filename} is missing."
        ) from error
    controls = {(one := json.loads(line))["subject"]: one["expected_object"] for line in lines if line.strip()}
    subject, queries = learn["subject"], tuple(learn["custom_user_queries_for_f2"])
    ours = wb.load_facts()[OURS]

    def fact(subject: str, answer: str, target: str, **more: Any) -> wb.Fact:
        prompt = ours.prompt.replace(ours.subject, subject)
        given = {"subject": subject, "answer": answer, "target": target, "prompt": prompt}
        return wb.Fact(question=about(subject, templates[0]), **given, **more)

    return Material(
        fact=fact(
            subject,
            unlearn["true_object_O1"],
            learn["modulated_object_O2"].rstrip("."),
            answer_aliases=("Facebook", "Meta"),
            paraphrases=tuple(q for q in queries if q != about(subject, templates[0])),
            heldout=tuple(q.replace(ours.subject, subject) for q in ours.heldout),
        ),
        refusal=unlearn["modulated_object_O2"],
        target=learn["modulated_object_O2"],
        queries=queries,
        templates=templates,
        controls=tuple(fact(of, answer, "nobody") for of, answer in controls.items()),
        source="the paper's own, from its repository",
    )


def modules(model: wb.LoadedModel) -> tuple[list[str], list[str]]:
    """Names of the modules whose gates are trained, and of those of them that are scaled at their input: the down
    projections alone, as the paper has it."""
    depth, at = model.shape.n_layers, model.architecture.gate_module
    mlps, attentions = (sorted({round(i / DEPTH * depth) for i in of}) for of in (MLPS, ATTENTIONS))
    gated = any("gate" in sites for sites in model.architecture.family.modules.values())
    of_mlp: tuple[Site, ...] = (*(("gate",) if gated else ()), "up", "post")
    of_attention: tuple[Site, ...] = ("q", "k", "v", "z")
    names = [at(layer, site).module for layer in mlps for site in of_mlp]
    names += [at(layer, site).module for layer in attentions for site in of_attention]
    return list(dict.fromkeys(names)), [at(layer, "post").module for layer in mlps]


def rows_of(model: wb.LoadedModel, material: Material, answer: str, answer_only: bool) -> list[dict[str, list[int]]]:
    """The texts of a stage as tokens, with what counts in the loss: all of them, or those of the answer."""
    rows: list[dict[str, list[int]]] = []
    for query in material.queries:
        asked = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": query}]
        before: str = model.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        whole: str = model.tokenizer.apply_chat_template(
            [*asked, {"role": "assistant", "content": answer}], tokenize=False
        )
        ids, prompt = (list(model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (whole, before))
        hidden = len(prompt) if answer_only else 0
        rows.append({"input_ids": ids, "labels": [-100] * hidden + ids[hidden:]})
    return rows


def train(network: Any, model: wb.LoadedModel, rows: Any, epochs: int, seed: int) -> Any:
    """One stage: the network with its gates merged."""
    from peft import IA3Config, TaskType, get_peft_model
    from transformers import Trainer, TrainingArguments, default_data_collator, set_seed

    set_seed(seed)
    targets, inner = modules(model)
    config = IA3Config(task_type=TaskType.CAUSAL_LM, target_modules=targets, feedforward_modules=inner)
    gated: Any = get_peft_model(network, config)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=1,
            learning_rate=RATE,
            lr_scheduler_type="linear",
            warmup_steps=WARMUP,
            weight_decay=DECAY,
            seed=seed,
            logging_steps=100,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=model.device.type == "cpu",
        )
        Trainer(model=gated, args=arguments, train_dataset=rows, data_collator=default_data_collator).train()
    return gated.merge_and_unload().eval().requires_grad_(False)


@dataclass(frozen=True)
class Said:
    """One text: to what it is an answer (``"trained"``, ``"template"``, ``"held-out"`` or ``"control"``), about which
    subject, and what it is."""

    group: str
    subject: str
    question: str
    text: str
    label: AnswerClass


def asked(material: Material) -> list[tuple[str, wb.Fact, str]]:
    """Group, fact and question of everything that is asked."""
    fact = material.fact
    found = [("trained", fact, query) for query in material.queries]
    found += [("template", fact, about(fact.subject, one)) for one in material.templates]
    found += [("held-out", fact, question) for question in fact.heldout]
    return found + [
        ("control", control, about(control.subject, one)) for control in material.controls for one in material.templates
    ]


def answers(answering: Answering, view: wb.LoadedModel, material: Material) -> list[Said]:
    """What a model says to everything."""
    every = asked(material)
    replies = answering.replies(view, [Ask("chat", question) for _, _, question in every])
    return [
        Said(
            group,
            fact.subject,
            question,
            reply.text,
            reply.label(fact, taught=[material.fact] if group == "control" else None),
        )
        for (group, fact, question), reply in zip(every, replies, strict=True)
    ]


def theirs(said: Sequence[Said], material: Material) -> dict[str, Rate]:
    """Their counting."""
    fact = material.fact
    own = [one.text for one in said if one.group == "template"]
    named = {control.subject: [control.answer] for control in material.controls}
    right: dict[str, bool] = {}
    for one in said:
        if one.group == "control":
            right[one.subject] = right.get(one.subject, False) or matches(one.text, named[one.subject])
    return {
        "new fact": wilson(sum(matches(text, [fact.target]) for text in own), len(own)),
        "forgotten": wilson(sum(not matches(text, [fact.answer]) for text in own), len(own)),
        "controls": wilson(sum(right.values()), len(right)),
    }


def ours(said: Sequence[Said], base: Sequence[Said]) -> dict[str, Rate]:
    """Our counting of the same texts, and of the answers to held-out questions."""
    pairs = list(zip(said, base, strict=True))

    def new(group: str) -> Rate:
        of = [one.label == "new" for one in said if one.group == group]
        return wilson(sum(of), len(of))

    def forgotten(group: str) -> Rate:
        of = [one.label in ("new", "refusal", "other") for one, b in pairs if one.group == group and b.label == "old"]
        return wilson(sum(of), len(of))

    kept = [one.label == "old" for one, before in pairs if one.group == "control" and before.label == "old"]
    return {
        "new fact": new("template"),
        "forgotten": forgotten("template"),
        "controls": wilson(sum(kept), len(kept)),
        "new fact, held-out questions": new("held-out"),
        "forgotten, held-out questions": forgotten("held-out"),
    }


def run(model: wb.LoadedModel, material: Material, epochs: int) -> dict[str, Any]:
    """Both stages and the default edit, with every text."""
    answering = Answering(model)
    said = {"base": answers(answering, model, material)}
    seconds: dict[str, float] = {}
    for suffix, answer_only in (("", False), (ANSWER_ONLY, True)):
        network: Any = copy.deepcopy(model.hf)
        for stage, answer, seed in zip(("unlearn", "learn"), (material.refusal, material.target), SEEDS, strict=True):
            began = time.perf_counter()
            network = train(network, model, rows_of(model, material, answer, answer_only), epochs, seed)
            name = f"{stage}{suffix}"
            seconds[name] = round(time.perf_counter() - began)
            merged = wb.load_model(network, tokenizer=model.tokenizer, name=name, template={"system": SYSTEM})
            said[name] = answers(answering, merged, material)
    began = time.perf_counter()
    edit = wb.rewrite(model, material.fact, progress=False)
    seconds["default"] = round(time.perf_counter() - began)
    with applied(model, edit, "learn", stack=True) as edited:
        said["default"] = answers(answering, edited, material)
    counted = {
        stage: {
            "theirs": {name: vars_of(rate) for name, rate in theirs(of, material).items()},
            "ours": {name: vars_of(rate) for name, rate in ours(of, said["base"]).items()},
        }
        for stage, of in said.items()
    }
    return {
        "model": model.name,
        "texts from": material.source,
        "fact": {"subject": material.fact.subject, "old": material.fact.answer, "new": material.fact.target},
        "modules": modules(model)[0],
        "steps a stage": epochs * len(material.queries),
        "seconds": seconds,
        "paper": PAPER,
        "counted": counted,
        "said": {stage: [vars(one) for one in of] for stage, of in said.items()},
    }


def table(found: dict[str, Any]) -> str:
    """The card: the paper's numbers, and both countings after the second stage, in Markdown."""
    heads = ["", "the paper", "its configuration: their counting", "our counting"]
    heads += [f"{ANSWER_ONLY[2:]}: their counting", "our counting", "our default: their counting", "our counting"]
    counted = [found["counted"][name] for name in ("learn", f"learn{ANSWER_ONLY}", "default")]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in counted[0]["ours"]:
        cells = [str(PAPER.get(name, ""))]
        for of in counted:
            cells += [str(Rate(**of["theirs"][name])) if name in of["theirs"] else "", str(Rate(**of["ours"][name]))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    """Run it, print the card, write ``benchmarks/results/reproduction.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clone", type=Path, help="a clone of the paper's repository")
    parser.add_argument("--model", help="a folder or a hub id; the bundled model by default")
    parser.add_argument("--dtype")
    parser.add_argument("--device")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=FOLDER / "reproduction.json")
    args = parser.parse_args(given)
    code = code_of(__file__)
    material = own_material() if args.clone is None else material_of(args.clone)
    model = wb.load_model(args.model, dtype=args.dtype, device=args.device, template={"system": SYSTEM})
    found = run(model, material, args.epochs)
    print(f"{found['texts from']}\n\n{table(found)}")
    write_bytes(args.out, json.dumps({"code": code.to_dict(), **found}, indent=1).encode())


if __name__ == "__main__":
    main()
