"""Training: losses, the loop, settings, bulk building of memories."""
