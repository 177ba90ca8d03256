"""Grafana dashboards of claimsvc, built by code. `python -m dashboards` writes their JSON to `dashboards/grafana`.

This package imports nothing of the service: it refers to metrics only by their names, as operators do.
"""
