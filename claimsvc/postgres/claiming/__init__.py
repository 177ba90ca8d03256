"""How PostgreSQL decides claims: the fast path, the full path, and the dispatcher between them."""
