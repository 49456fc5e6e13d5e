"""Blocks of networks that only models of the zoo use."""
