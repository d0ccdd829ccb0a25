"""One function over many facts, on any executor, with results on disk as they come."""
