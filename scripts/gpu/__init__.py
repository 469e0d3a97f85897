"""Machinery of the GPU report: its sections, each measured in a process of its own."""

NAMES = (  # of the sections, in the order in which they are run
    *("machine", "rates", "exactness", "layers", "images", "pictures"),
    *("long", "memory", "training", "generation", "tests", "nccl"),
)
