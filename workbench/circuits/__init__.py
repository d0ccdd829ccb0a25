"""Whole circuits: scores of edges, the path between two components, and how faithful a circuit is."""
