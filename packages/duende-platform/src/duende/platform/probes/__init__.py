"""One way each to try whether something is there and works, bounded in time.

A probe takes a `World` and gives a `Capability`; it changes nothing that stays.
"""
