"""Linked maps and one selection."""
