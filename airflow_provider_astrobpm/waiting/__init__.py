"""Waits: what a poll means for a wait, when the next poll is due, and one poll loop for many waits."""
