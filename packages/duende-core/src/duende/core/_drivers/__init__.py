"""Drivers: they turn the world into events and effects into calls, and decide nothing."""
