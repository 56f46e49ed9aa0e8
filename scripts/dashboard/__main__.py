"""Write the dashboard into the chart: `python -m scripts.dashboard`."""

from __future__ import annotations

import json

from scripts.dashboard.dashboard import FILE, dashboard

FILE.write_text(json.dumps(dashboard(), indent=1) + "\n")
