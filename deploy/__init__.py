"""What runs around the service: image, compose, Prometheus and Grafana. In the repository, not in the wheel."""
