"""Closed-form editing: places, keys, targets, formulas and the writing of updates."""
