"""Asset events: which instances have entered a state since the last poll, and which of them were reported."""
