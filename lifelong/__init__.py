"""Lifelong user-behaviour modelling: one small memory per user, written per event, read per request."""

__version__ = "0.1.0"
