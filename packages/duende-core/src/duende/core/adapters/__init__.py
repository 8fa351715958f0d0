"""Adapters: a platform each. What one cannot do raises NotSupported and says why."""
