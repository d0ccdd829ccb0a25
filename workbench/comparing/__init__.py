"""Control arms beside an edit, and maps before and after it."""
