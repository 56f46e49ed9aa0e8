"""How much is stored for which network, and whose records are evicted when the store is full.

The shares form a tree: subnets, the addresses in them, the identities there. Each has the sum of those below it. To
evict, the tree is searched from the top: the subnet with most, in it the address with most, there the identity. So a
subnet loses nothing while another one has more, however many identities or addresses that one has. A newcomer that has
most itself is refused.
"""

from __future__ import annotations

from operator import attrgetter

from speil.kad.network_group import OwnNetwork, address_of, subnet_of

FAVOUR = 4  # members and this node's own network count a quarter


class Share:
    """What is stored for one subnet, address or identity, in words of eight bytes."""

    __slots__ = ("children", "favoured", "name", "parent", "words")

    def __init__(self, name: str | int, parent: Share | None) -> None:
        self.name, self.parent = name, parent
        self.words = 0
        self.favoured = False
        self.children: dict[str | int, Share] = {}

    @property
    def weight(self) -> int:
        """The words that count in the search for the biggest share."""
        return self.words // FAVOUR if self.favoured else self.words

    def spend(self, words: int) -> None:
        """Add `words` (negative to subtract) to this share and all above it."""
        share: Share | None = self
        while share is not None:
            share.words += words
            share = share.parent

    def child(self, name: str | int) -> Share:
        """The share below with this name, made where it does not exist."""
        if (found := self.children.get(name)) is None:
            found = self.children[name] = Share(name, self)
        return found

    def above(self, level: int) -> Share:
        """The subnet (1) or address (2) of this share, which is an identity's."""
        address = self.parent
        assert address is not None
        assert address.parent is not None
        return address if level == 2 else address.parent

    def leave(self) -> None:
        """Remove this empty share, and those above it that are empty then."""
        share = self
        while share.parent is not None and not share.children and not share.words:
            del share.parent.children[share.name]
            share = share.parent


class Shares:
    """The tree. The leaves are identities, by number."""

    def __init__(self, own: OwnNetwork) -> None:
        self._own = own
        self._root, self._self = Share("", None), Share("self", None)

    @property
    def words(self) -> int:
        """What is stored for all peers, without this node's own records."""
        return self._root.words

    def of(self, number: int, host: str, *, is_own: bool, is_member: bool) -> Share:
        """The share of an identity whose packets come from `host`. That of this node (`is_own`) is never evicted."""
        share, favoured = self._self if is_own else self._root, is_member or self._own.covers(host)
        for name in (subnet_of(host), address_of(host), number):
            share = share.child(name)
            share.favoured = share.favoured or favoured
        return share

    def biggest_but(self, newcomer: Share) -> Share | None:
        """The share to evict from for `newcomer`; None where `newcomer` is the biggest itself."""
        path = _path(newcomer)
        share, depth = self._root, 1
        while share.children:
            biggest = max(share.children.values(), key=attrgetter("weight"))
            if depth < len(path) and path[depth - 1] is share and biggest.weight <= path[depth].weight:
                biggest = path[depth]
            share, depth = biggest, depth + 1
        return None if share is newcomer or share is self._root else share


def is_bigger(one: Share, other: Share) -> bool:
    """Whether `one` is still to be evicted for `other`: it has more, where their paths in the tree part."""
    for left, right in zip(_path(one), _path(other), strict=False):
        if left is not right:
            return left.weight > right.weight
    return False


def _path(share: Share) -> list[Share]:
    """The path from the root to a share."""
    found: list[Share] = []
    one: Share | None = share
    while one is not None:
        found.append(one)
        one = one.parent
    return found[::-1]
