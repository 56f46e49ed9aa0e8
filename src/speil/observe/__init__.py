"""Logs, metrics, health: the only package that knows a logging or a metrics library."""
