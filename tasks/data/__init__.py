"""Data modules: rows from a hub name or local files, as batches in a reproducible order."""

from tasks.data.audio import AudioData
from tasks.data.base import Data
from tasks.data.images import ImageData
from tasks.data.language import CorpusData
from tasks.data.listops import ListOpsData
from tasks.data.module import ClassificationData
from tasks.data.recall import RecallData
from tasks.data.text import TextData

__all__ = [
    "AudioData",
    "ClassificationData",
    "CorpusData",
    "Data",
    "ImageData",
    "ListOpsData",
    "RecallData",
    "TextData",
]
