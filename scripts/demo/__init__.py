"""Machinery of the memory demo."""
