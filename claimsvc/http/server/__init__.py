"""An HTTP server on aiohttp's parser. Every request gets one response, one log line and one metric."""
