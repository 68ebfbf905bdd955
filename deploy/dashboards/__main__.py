"""Render the dashboards into deploy/grafana/dashboards, where Grafana's provisioning finds them."""

from __future__ import annotations

from deploy.dashboards.render import write_all

if __name__ == "__main__":
    for path in write_all():
        print(path)
