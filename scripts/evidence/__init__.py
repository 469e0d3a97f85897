"""Machinery of trainings that are run for what they show."""
