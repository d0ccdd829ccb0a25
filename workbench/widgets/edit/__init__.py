"""The panel that runs an edit."""
