"""Drivers: they turn the world into events, effects into calls, and decide nothing."""
