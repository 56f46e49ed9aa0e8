"""Logs and metrics. No other package imports a logging or metrics library."""
