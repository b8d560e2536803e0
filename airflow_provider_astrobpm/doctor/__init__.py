"""What the doctor asks an endpoint, what it concludes from the answers, and what it reports."""
