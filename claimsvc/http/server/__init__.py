"""Connections: aiohttp's parser below, one answer, one log line and one count for each request."""
