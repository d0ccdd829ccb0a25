"""Soft-forgetting probes: what is left of a fact that an edit was to remove."""
