"""Data modules: rows from a hub name or local files, as batches in a reproducible order."""

from tasks.data.images import ImageData
from tasks.data.module import ClassificationData
from tasks.data.text import TextData

__all__ = ["ClassificationData", "ImageData", "TextData"]
