"""One task, one instance: what a try does with the instances that it finds, and the start of one instance."""
