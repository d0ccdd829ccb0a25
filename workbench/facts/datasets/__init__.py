"""Facts from files: this project's own tables and JSON, and the schemas of public editing data sets."""

from workbench.facts.datasets.read import read_facts
from workbench.facts.datasets.schemas import Schema, recognise

__all__ = ["Schema", "read_facts", "recognise"]
