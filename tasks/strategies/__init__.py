"""Several processes: how they meet, stop together and share a model or a sequence."""
