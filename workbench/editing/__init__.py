"""Rewriting a fact: IA3 gates on selected components, fitted in stages, applied without touching the base model."""
