"""Choose a fact, or write one."""
