"""A sweep as a panel: how far it is, what failed, and the average so far."""
