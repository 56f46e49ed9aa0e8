"""The Helm chart as helm renders it, and the rules as promtool reads them. No cluster."""
