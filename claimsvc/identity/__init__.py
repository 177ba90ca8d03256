"""Authentication of users by their tokens."""
