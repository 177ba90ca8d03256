"""The `exports` resource."""
