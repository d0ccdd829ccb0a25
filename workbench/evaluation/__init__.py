"""What an edit changed: answers before and after. Their rates are defined in ``workbench.types.rate_rules``."""
