"""What all routes share: routing, authentication, bodies, validation, idempotency, rate limits, OpenAPI."""
