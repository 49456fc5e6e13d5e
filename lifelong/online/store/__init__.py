"""Bytes: where the records of users are kept. It knows no model, no event, no artifact."""
