"""The `operations` resource."""
