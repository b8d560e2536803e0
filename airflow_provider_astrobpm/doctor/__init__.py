"""The doctor: probes an endpoint, draws conclusions from its answers, and reports them."""
