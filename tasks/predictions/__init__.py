"""Predictions as rows of a file: the columns of each kind of answer, the kinds of files, and pictures beside them."""
