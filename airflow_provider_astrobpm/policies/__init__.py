"""Retry policies: whether and when a failed task is retried."""
