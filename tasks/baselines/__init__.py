"""Baselines: what a practitioner would try first on the same split, beside which a network's figures mean something.

Each kind of data has a file, with `applies(data)` and `fit(data)`, and a line of `registry.MODULES`. They need
scikit-learn, and are imported once they are asked for.
"""
