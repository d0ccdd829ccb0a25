"""The runs of a session: their history, the list that opens, names, deletes and compares them, and who saves them."""
