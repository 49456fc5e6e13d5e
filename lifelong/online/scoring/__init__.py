"""Answers out: scores and explanations, without a web framework."""
