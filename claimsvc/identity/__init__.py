"""Who calls: users' tokens."""
