"""Machinery of the benchmarks: what is compared, how it is measured, recorded and reported."""
