"""Facts and tasks: the bundled ones, files of one's own, and which facts a model knows."""

from workbench.facts.known import known_facts, load_facts
from workbench.facts.tasks import load_task

__all__ = ["known_facts", "load_facts", "load_task"]
