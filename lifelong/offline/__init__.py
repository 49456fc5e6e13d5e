"""Makes artifacts from raw logs: preparation, models, training, evaluation, reports. Knows no store and no server."""
