"""Machines: pure decisions. No clock, no I/O, no randomness, no loop in here."""
