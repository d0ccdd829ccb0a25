"""The battery that looks for what is left of the old fact; a file a probe."""
