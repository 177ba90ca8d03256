"""Grafana's dashboards of claimsvc, built by code. `python -m dashboards` writes their JSON to `dashboards/grafana`.

It imports nothing of the service: like whoever is on call, it knows the metrics by their names only.
"""
