"""Writes a trained model as an artifact: its graphs and its weights."""
