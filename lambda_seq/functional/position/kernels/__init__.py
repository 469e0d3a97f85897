"""Triton kernels of the position lambda. They need Triton, so they are imported where they run, and not before."""
