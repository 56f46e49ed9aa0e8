"""A token bucket: so many at once, so many a second after that. It reads no clock."""

from __future__ import annotations

from collections import OrderedDict


class Bucket:
    """Full at first."""

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, burst: float, per_second: float, now: float) -> None:
        self._burst, self._per_second = burst, per_second
        self._left, self._at = burst, now

    def take(self, now: float) -> bool:
        """One more, if there is one."""
        if self._fill(now) < 1:
            return False
        self._left -= 1
        return True

    def is_empty(self, now: float) -> bool:
        """Whether `take` would give nothing."""
        return self._fill(now) < 1

    def owe(self, now: float, count: int = 1) -> float:
        """So many more in any case; seconds to wait until they are paid."""
        self._left = self._fill(now) - count
        return max(0.0, -self._left / self._per_second)

    def give_back(self) -> None:
        """One was not used."""
        self._left = min(self._burst, self._left + 1)

    def _fill(self, now: float) -> float:
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        return self._left


class Buckets:
    """One for each key; of keys that are not used for long the oldest are forgotten."""

    def __init__(self, burst: float, per_second: float, keys_max: int) -> None:
        self._burst, self._per_second, self._keys_max = burst, per_second, keys_max
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def of(self, key: str, now: float) -> Bucket:
        """The bucket of `key`."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self._burst, self._per_second, now)
            if len(self._buckets) > self._keys_max:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return bucket
