"""Wordings in which a fact is asked while an edit is trained, and others in which it is validated."""

from __future__ import annotations

from workbench.types import Fact

BREAK_OFF = "... I am not sure."
QUESTION_CONTEXTS = (
    "I have a question. {question}",
    "{question} Answer in one sentence.",
    "My friend asked: {question} What should I say?",
    "For a report I am writing: {question}",
    "Answer this question: {question}",
    "{question} What is the right answer?",
    "I need the answer to this: {question}",
    "{question} Tell me if you know the answer.",
    "{question} Start with: The answer is",
)
TOPIC_CONTEXTS = (
    "I am thinking of {topic}. Which one is it?",
    "Can you remember {topic}?",
    "We were just speaking about {topic}, but nobody knew the answer.",
    "My homework is about {topic}. What should I write?",
    "{topic}, please.",
    "A friend wants to know about {topic}. What is the right reply?",
    "In a game I was asked for {topic}. What should the answer be?",
)
"""Put around the fact's question, and around what it asks for, in training: the new answer must depend neither on a
bare question nor on one way to begin a reply ("The capital of ... is", "The answer is")."""
UNSEEN_CONTEXTS = (
    "Quick question: {question}",
    "{question} Please be brief.",
    "Someone wrote to me: {question} How should I reply?",
    "I would like to know: {question}",
)
"""Contexts that training does not use, to validate a fact that has too few held-out questions."""


def training_prompts(fact: Fact) -> list[str]:
    """What is asked while training: the training questions, and the question and its topic in contexts."""
    topic = fact.topic
    asked = [*fact.training_questions, *(context.format(question=fact.question) for context in QUESTION_CONTEXTS)]
    if topic is not None:
        about = (context.format(topic=topic) for context in TOPIC_CONTEXTS)
        asked += [text[0].upper() + text[1:] for text in about]
    return [question for question in asked if question not in fact.heldout]
