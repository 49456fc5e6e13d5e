"""A prepared dataset as a folder: events, vocabularies, catalogue, histories, examples. Both halves read it."""
