"""The `users` resource."""
