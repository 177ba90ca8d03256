"""The `claims` resource."""
