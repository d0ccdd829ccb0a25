"""What several panels use."""
