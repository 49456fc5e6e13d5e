"""User memories outside of training: their form, codecs, stores, and the updater. No torch here."""
