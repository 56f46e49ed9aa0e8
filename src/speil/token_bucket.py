"""Token buckets: so much at once, so much a second after that. A core that reads no clock.

Amounts have the unit of the caller: requests, frames, seconds of CPU time. `now` is the caller's monotonic time.
"""

from __future__ import annotations

from collections import OrderedDict


class Bucket:
    """One bucket. It starts full."""

    __slots__ = ("_at", "_burst", "_level", "_per_second", "overdrawn_since")

    def __init__(self, burst: float, per_second: float, now: float) -> None:
        self._burst, self._per_second = burst, per_second
        self._level, self._at = burst, now
        # When the level fell below zero; None again once it has reached half of the burst.
        self.overdrawn_since: float | None = None

    def level(self, now: float) -> float:
        """What is left; negative while the bucket is overdrawn."""
        self._level = min(self._burst, self._level + (now - self._at) * self._per_second)
        self._at = now
        if self.overdrawn_since is not None and self._level >= self._burst / 2:
            self.overdrawn_since = None
        return self._level

    def is_empty(self, now: float) -> bool:
        """Whether `take` would refuse one."""
        return self.level(now) < 1

    def take(self, now: float, amount: float = 1) -> bool:
        """Take `amount` if that much is left; otherwise take nothing and return False."""
        if self.level(now) < amount:
            return False
        self._level -= amount
        return True

    def wait_seconds(self, now: float, amount: float) -> float:
        """Seconds until `amount` is there. Nothing is taken."""
        return max(0.0, (amount - self.level(now)) / self._per_second)

    def overdraw(self, now: float, amount: float = 1) -> float:
        """Take `amount` whatever is left; seconds until the level is back at zero."""
        self._level = self.level(now) - amount
        if self._level < 0 and self.overdrawn_since is None:
            self.overdrawn_since = now
        return max(0.0, -self._level / self._per_second)

    def give_back(self, amount: float = 1) -> None:
        """Return what was taken and not used."""
        self._level = min(self._burst, self._level + amount)


class Buckets:
    """A bucket for each key. Above `keys_max` the key that was used longest ago is dropped."""

    def __init__(self, burst: float, per_second: float, keys_max: int) -> None:
        self._burst, self._per_second, self._keys_max = burst, per_second, keys_max
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, key: str, now: float) -> Bucket:
        """The bucket of `key`; a full one where the key is new."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self._burst, self._per_second, now)
            if len(self._buckets) > self._keys_max:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return bucket
