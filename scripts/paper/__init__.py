"""Machinery of the paper's tables."""
