"""The Grafana dashboards as typed code: `python -m deploy.dashboards` renders them into deploy/grafana/dashboards.

The rendered JSON is committed, for Grafana reads files; a test holds that it is what this code says.
"""
