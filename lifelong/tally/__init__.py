"""Tally's law: what is kept of a user and read of it. NumPy and Numba alone."""
