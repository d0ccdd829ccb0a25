"""CircuitGraph: a circuit as a graph, in which nodes and edges are clicked."""
