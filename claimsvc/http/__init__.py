"""The HTTP API: `routes` says what there is, `app` serves it."""
