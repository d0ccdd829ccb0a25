"""Scripts that measured every number in the README and the docs. ``make bench`` runs them all."""
