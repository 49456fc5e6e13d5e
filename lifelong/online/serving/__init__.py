"""Scoring requests over HTTP and in process. No torch here."""
