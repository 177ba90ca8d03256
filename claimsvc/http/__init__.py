"""The HTTP API: `routes` lists the operations, `app` builds the application, and `runner` serves it."""
