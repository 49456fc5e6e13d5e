"""From a dataset to batches: histories of targets, negatives, counts, popularity."""
