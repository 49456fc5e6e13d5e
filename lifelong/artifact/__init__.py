"""A trained model as a folder that both halves read: settings, vocabularies, calibration, graphs. Needs no torch."""
