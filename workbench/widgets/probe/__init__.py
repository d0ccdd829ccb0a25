"""The panel that runs the probes."""
