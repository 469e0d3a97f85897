"""Encoders and language models of sequences, and what they are made of."""
