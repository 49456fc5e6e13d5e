"""Checks that every model and store passes; import them to test your own."""
