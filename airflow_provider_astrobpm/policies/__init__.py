"""Retry policies: what becomes of a task after a failure."""
