"""Metrics, significance, evaluation and result records."""
