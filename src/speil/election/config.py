"""The timings of an election and the relations between them (client-go, `leaderelection.NewLeaderElector`).

A leader renews every retry period. If it fails to renew for the renew deadline, it stops leading. That must happen
before others may take the Lease, which is the lease duration after its last renewal.
"""

from __future__ import annotations

from dataclasses import dataclass

JITTER_FACTOR = 1.2  # client-go's: a wait of `period` takes up to 2.2 periods


class ElectionConfigError(ValueError):
    """Timings that can't work together. The message names the flags and the relation that is broken."""


@dataclass(frozen=True, slots=True)
class ElectionConfig:
    """Timings in seconds; the defaults are Spegel's. Raises ElectionConfigError."""

    lease_duration_seconds: int = 10  # the API takes whole numbers only
    renew_deadline_seconds: float = 5.0
    retry_period_seconds: float = 2.0

    def __post_init__(self) -> None:
        duration, deadline, retry = (
            self.lease_duration_seconds,
            self.renew_deadline_seconds,
            self.retry_period_seconds,
        )
        if duration < 1 or retry <= 0:
            raise ElectionConfigError("--lease-duration must be at least 1s and --retry-period more than 0")
        if deadline <= JITTER_FACTOR * retry:
            raise ElectionConfigError(
                f"--renew-deadline ({deadline:g}s) must be more than {JITTER_FACTOR:g} × --retry-period ({retry:g}s)"
            )
        if duration <= deadline + retry:
            # stricter than client-go, which asks for more than the renew deadline alone
            raise ElectionConfigError(
                f"--lease-duration ({duration}s) must be more than --renew-deadline ({deadline:g}s) and --retry-period "
                f"({retry:g}s) together, or a new leader could start before the old one stops leading"
            )

    @property
    def give_up_seconds(self) -> float:
        """A leader that can't renew stops leading this long after its last renewal."""
        return self.retry_period_seconds + self.renew_deadline_seconds

    @property
    def missed_renewals_seconds(self) -> float:
        """The time of two renewals: a record that did not change for as long has probably lost its leader."""
        return 2 * self.retry_period_seconds

    @property
    def request_timeout_seconds(self) -> float:
        """The timeout of one request. Two requests must fit into the renew deadline."""
        return self.renew_deadline_seconds / 2


DEFAULT_CONFIG = ElectionConfig()
