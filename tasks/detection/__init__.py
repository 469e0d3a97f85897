"""Detection: boxes and masks of the objects in photos, by torchvision's Mask R-CNN on a network of the registry.

Nothing of torchvision or pycocotools is imported before a `Detection` or `DetectionData` is made.
"""

from lambda_seq.tasks.detection.data import DetectionData
from lambda_seq.tasks.detection.task import Detection

__all__ = ["Detection", "DetectionData"]
