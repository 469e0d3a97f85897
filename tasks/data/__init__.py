"""Data modules: rows from a hub name or local files, as batches in a reproducible order."""

from lambda_seq.tasks.data.audio.data import AudioData
from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.images.data import ImageData
from lambda_seq.tasks.data.language.data import CorpusData
from lambda_seq.tasks.data.module import ClassificationData
from lambda_seq.tasks.data.series.data import SeriesData
from lambda_seq.tasks.data.synthetic.listops import ListOpsData
from lambda_seq.tasks.data.synthetic.recall import RecallData
from lambda_seq.tasks.data.tags.data import TagData
from lambda_seq.tasks.data.text.biosequences import BiosequenceData
from lambda_seq.tasks.data.text.data import TextData

__all__ = [
    "AudioData",
    "BiosequenceData",
    "ClassificationData",
    "CorpusData",
    "Data",
    "ImageData",
    "ListOpsData",
    "RecallData",
    "SeriesData",
    "TagData",
    "TextData",
]
