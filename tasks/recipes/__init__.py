"""Recipes: options that follow from how many rows there are to train on, and how long they are.

    lambda-seq fit --config text_classification --data.path reviews.csv     # whose `recipe` is texts

A recipe measures the training data and chooses the options that were given neither on the command line nor in a
configuration, each with its reason. What it chooses when is a table at the top of its file; `registry.Recipe` says what
it is made of. A new one is a file here, and a name in the import below.
"""

from lambda_seq.tasks.recipes import audio, pictures, series, texts
from lambda_seq.tasks.recipes.registry import RECIPES, Choice, Measured, Recipe, named

__all__ = ["RECIPES", "Choice", "Measured", "Recipe", "audio", "named", "pictures", "series", "texts"]
