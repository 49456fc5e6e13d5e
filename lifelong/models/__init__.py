"""The models, one file each, and `MODELS`, the only registry."""
