"""Keeps memories and answers from them: store, memory, ingestion, scoring, serving. Needs no torch."""
