"""containerd's hosts.toml ("registry host namespace" configuration): rendered, overlaid, judged. A core.

Only what every containerd from 1.6 on accepts is written: 2.x drops a mirror without a word for an unknown capability,
a bad timeout or an empty file, and 1.6 rejects a file without a host.
"""
