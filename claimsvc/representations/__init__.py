"""The readable and writable forms of requests and answers that HTTP and the command line share: models, CSV, NDJSON."""
