"""Finished models as folders: reading them without torch, writing them with it."""
