"""The panel of a stack of edits: its list, what each edit broke, and how they overlap."""
