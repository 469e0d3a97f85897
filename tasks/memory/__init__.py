"""Memory of a training step: how much there is, how much a step takes, and what to change where that is too much."""
