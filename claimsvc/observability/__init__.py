"""Metrics, tracing and the console; nothing below imports them."""
