"""Texts and tokens: prompts, answers, generation, scoring."""
