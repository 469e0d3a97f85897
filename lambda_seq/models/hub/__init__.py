"""Saved models: folders of weights and options, model cards, repositories of the hub."""
