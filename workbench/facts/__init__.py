"""Facts: the bundled ones, files of one's own, and which of them a model knows."""

from workbench.facts.known import known_facts, load_facts

__all__ = ["known_facts", "load_facts"]
