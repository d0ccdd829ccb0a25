"""What every iterative fit shares: rows, loop, objectives, optimisers."""
