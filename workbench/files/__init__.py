"""Saved results: whole files or none, checked JSON, one file a result kind, sessions."""
