"""One clickable heat map."""
