"""Measuring what an edit did."""
