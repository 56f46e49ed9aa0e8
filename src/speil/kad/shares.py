"""Who keeps how much here, told by where it comes from; and who has to give way when all is taken.

Subnets, the addresses in them, and the identities there: each has what is kept for those below it. Who gives way is
found from the top: the subnet that keeps most, in it the address that keeps most, there the identity. So nobody loses
anything while another subnet keeps more, however many identities or addresses that one has; and who keeps most itself
is turned away.
"""

from __future__ import annotations

from operator import attrgetter

from speil.kad.network_group import OwnNetwork, address_of, subnet_of

FAVOUR = 4  # members and this node's own network count as if they kept a quarter


class Share:
    """What is kept for one subnet, address or identity, in words of eight bytes."""

    __slots__ = ("children", "favoured", "name", "parent", "words")

    def __init__(self, name: str | int, parent: Share | None) -> None:
        self.name, self.parent = name, parent
        self.words = 0
        self.favoured = False
        self.children: dict[str | int, Share] = {}

    @property
    def weight(self) -> int:
        """What counts when the biggest is looked for."""
        return self.words // FAVOUR if self.favoured else self.words

    def spend(self, words: int) -> None:
        """Keep so much more, or less; all above count it too."""
        share: Share | None = self
        while share is not None:
            share.words += words
            share = share.parent

    def child(self, name: str | int) -> Share:
        """One below, made where it is not there."""
        if (found := self.children.get(name)) is None:
            found = self.children[name] = Share(name, self)
        return found

    def above(self, level: int) -> Share:
        """Its subnet (1) or its address (2); it is an identity's itself."""
        address = self.parent
        assert address is not None
        assert address.parent is not None
        return address if level == 2 else address.parent

    def leave(self) -> None:
        """Nothing is kept any more: go, and with it those above that keep nothing else."""
        share = self
        while share.parent is not None and not share.children and not share.words:
            del share.parent.children[share.name]
            share = share.parent


class Shares:
    """All of them; the leaves are identities, by number."""

    def __init__(self, own: OwnNetwork) -> None:
        self._own = own
        self._root, self._self = Share("", None), Share("self", None)

    @property
    def words(self) -> int:
        """What is kept for all peers, without what this node keeps for itself."""
        return self._root.words

    def of(self, number: int, host: str, *, is_own: bool, is_member: bool) -> Share:
        """An identity's share; `host` is where its packets come from. This node itself (`is_own`) never gives way."""
        share, favoured = self._self if is_own else self._root, is_member or self._own.covers(host)
        for name in (subnet_of(host), address_of(host), number):
            share = share.child(name)
            share.favoured = share.favoured or favoured
        return share

    def biggest_but(self, newcomer: Share) -> Share | None:
        """Who has to give way to `newcomer`; None where that is itself the one that keeps most."""
        path = _path(newcomer)
        share, depth = self._root, 1
        while share.children:
            biggest = max(share.children.values(), key=attrgetter("weight"))
            if depth < len(path) and path[depth - 1] is share and biggest.weight <= path[depth].weight:
                biggest = path[depth]
            share, depth = biggest, depth + 1
        return None if share is newcomer or share is self._root else share


def is_bigger(one: Share, other: Share) -> bool:
    """Whether `one` still has to give way to `other`: where their ways part, it keeps more."""
    for left, right in zip(_path(one), _path(other), strict=False):
        if left is not right:
            return left.weight > right.weight
    return False


def _path(share: Share) -> list[Share]:
    """From the top down to it."""
    found: list[Share] = []
    one: Share | None = share
    while one is not None:
        found.append(one)
        one = one.parent
    return found[::-1]
