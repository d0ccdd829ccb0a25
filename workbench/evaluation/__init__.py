"""What an edit changed: answers before and after, asked and judged. Their rates are defined in ``workbench.types.rates``."""
