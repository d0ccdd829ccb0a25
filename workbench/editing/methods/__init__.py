"""The editing methods: a file a method, with its recipe. ``workbench.editing.recipes`` has the table of them."""
