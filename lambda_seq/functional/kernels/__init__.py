"""Triton kernels of the content lambda. Nothing imports them before they run."""
