"""The `audit` resource."""
