"""The chart's Grafana dashboard, charts/speil/files/dashboard.json, written by `make docs`; a test compares the two."""
