"""The `codes` resource."""
