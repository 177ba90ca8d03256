"""What an operator sees: a real Prometheus scrapes real instances, and every expression of ours has to answer."""
