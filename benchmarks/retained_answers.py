"""Ask the bundled model every training question of the facts that may be retained, and write what the package ships.

python -m benchmarks.retained_answers
"""

from __future__ import annotations

import workbench as wb
from workbench.editing.training.fit_rows import RETAIN_TOKENS
from workbench.language.bundled_answers import hashed, write_shipped
from workbench.language.generation import generate, stop_tokens
from workbench.language.prompts import prompt_ids


def main() -> None:
    """Write ``workbench/language/data/answers/<fingerprint>.json``."""
    from tqdm.auto import tqdm

    model = wb.load_model()
    facts = wb.known_facts(model, wb.load_facts().filter(role="retain"))
    questions = dict.fromkeys(question for fact in facts for question in fact.training_questions)
    prompts = [prompt_ids(model, question, "chat") for question in questions]
    with tqdm(total=len(prompts), desc="Asking") as bar:
        said = generate(model, prompts, max_new_tokens=RETAIN_TOKENS, progress=bar)
    stops = tuple(stop_tokens(model))
    keys = [hashed((tuple(prompt), RETAIN_TOKENS, stops)) for prompt in prompts]
    answers = {key: one.token_ids for key, one in zip(keys, said, strict=True)}
    print(f"{len(answers)} answers: {write_shipped(model.fingerprint, answers)}")


if __name__ == "__main__":
    main()
