"""Many instances at a time: batches of starts, and the same change to many instances."""
