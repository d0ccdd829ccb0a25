"""The editing methods: a file a method, with its recipe. ``workbench.editing.methods.table`` has the table of them."""
