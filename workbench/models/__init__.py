"""Language models: loading, families, structure copies, partial passes, one cache each."""

from workbench.models.load import AppliedEdit, LoadedModel, load_model

__all__ = ["AppliedEdit", "LoadedModel", "load_model"]
