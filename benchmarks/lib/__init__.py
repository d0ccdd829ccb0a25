"""What several benchmarks share: rates as they are kept, results that are made once, and timing."""
