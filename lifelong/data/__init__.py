"""From raw logs to batches: sources, preparation, histories, examples, vocabularies, catalogue."""
