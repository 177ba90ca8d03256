"""The `console` resource."""
