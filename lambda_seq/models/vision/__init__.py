"""Residual networks for images."""
