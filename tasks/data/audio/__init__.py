"""Clips with labels."""
