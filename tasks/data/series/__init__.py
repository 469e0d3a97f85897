"""Series of numbers, of any channels."""
