"""Ask the bundled model what every edit and every evaluation asks of the base, and write what the package ships: every
training question of the facts that may be retained, and the question of every known fact, which may be a control.

    python -m benchmarks.retained_answers

Answers that are on file are kept: delete the file to ask them anew.
"""

from __future__ import annotations

from collections.abc import Iterator

import workbench as wb
from workbench.facts.retained import RETAIN_TOKENS
from workbench.language.bundled_answers import AnswerKey, hashed, shipped_answers, write_shipped
from workbench.language.generation import MAX_NEW_TOKENS, generate, stop_tokens
from workbench.language.prompts import prompt_ids
from workbench.models.load import LoadedModel


def asked_keys(model: LoadedModel) -> Iterator[AnswerKey]:
    """What is shipped: each prompt, with the most tokens of its answer and what ends one."""
    stops = tuple(stop_tokens(model))
    known = wb.known_facts(model, wb.load_facts(), progress=False)
    retained = [question for fact in known.filter(role="retain") for question in fact.training_questions]
    for questions, most in ((retained, RETAIN_TOKENS), ([fact.question for fact in known], MAX_NEW_TOKENS)):
        for question in dict.fromkeys(questions):
            yield tuple(prompt_ids(model, question, "chat")), most, stops


def main() -> None:
    """Write ``workbench/language/data/answers/<fingerprint>.json``."""
    from tqdm.auto import tqdm

    model = wb.load_model()
    keys = list(asked_keys(model))
    on_file = shipped_answers(model.fingerprint)
    answers = {hashed(key): on_file[hashed(key)] for key in keys if hashed(key) in on_file}
    missing = [key for key in keys if hashed(key) not in answers]
    with tqdm(total=len(missing), desc="Asking") as bar:
        for most in dict.fromkeys(key[1] for key in missing):
            part = [key for key in missing if key[1] == most]
            said = generate(model, [prompt for prompt, *_ in part], max_new_tokens=most, progress=bar)
            answers |= {hashed(key): list(one.token_ids) for key, one in zip(part, said, strict=True)}
    print(f"{len(answers)} answers: {write_shipped(model.fingerprint, answers)}")


if __name__ == "__main__":
    main()
