"""Texts with labels, and tokens."""
