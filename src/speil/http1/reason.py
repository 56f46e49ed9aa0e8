"""What h11 found wrong in received bytes, as text for log lines and errors."""

from __future__ import annotations

import re

import h11

QUOTED_CHARS_MAX = 120  # the other side's text is in it
_BYTES = re.compile(r"\bbytearray\((b['\"].*)\)", re.DOTALL)


def reason_of(error: h11.RemoteProtocolError) -> str:
    """At most QUOTED_CHARS_MAX characters, all printable: received bytes are shown as Python shows bytes."""
    return _BYTES.sub(r"\1", str(error))[:QUOTED_CHARS_MAX]
