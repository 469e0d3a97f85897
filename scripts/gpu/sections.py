"""All sections of the GPU report."""

from __future__ import annotations

from gpu import (
    exactness,
    generation,
    hardware,
    images,
    layers,
    long,
    memory,
    pictures,
    rates,
    several,
    suite,
    training,
)
from gpu.running import Section

MODULES = (hardware, rates, exactness, layers, images, pictures, long, memory, training, generation, suite, several)
SECTIONS: dict[str, Section] = {module.SECTION.name: module.SECTION for module in MODULES}
