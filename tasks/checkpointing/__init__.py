"""Checkpoint files, which of them is meant, and whose an output folder is."""
