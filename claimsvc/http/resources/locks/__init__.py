"""The `locks` resource."""
