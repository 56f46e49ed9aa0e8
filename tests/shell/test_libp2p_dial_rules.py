"""Addresses that peers tell: where this node lets itself be led, how often, and by whom."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from random import Random

import pytest

from speil.border.record import BorderRecord
from speil.kad.message import Message, MessageType
from speil.kad.routing_table import RoutingTable
from speil.libp2p.dial_rules import NEW_ADDRESSES_PER_MINUTE_MAX, DialRules
from speil.libp2p.error import Libp2pError, OwnLimitError, PeerUnreachableError, RefusedError
from speil.libp2p.host import Host
from speil.libp2p.identity import Identity
from speil.libp2p.neighbourhood import Neighbourhood
from speil.libp2p.series import Libp2pSeries
from speil.libp2p.transport import OpenGate, RawConnection, TcpTransport
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.routing.hearsay import UNREACHABLE_PER_MINUTE_MAX, Hearsay
from speil.routing.libp2p_network import Libp2pNetwork
from speil.routing.lookups import Lookups
from speil.routing.settings import RouterSettings, port_list
from speil.setting import ListenAddress, SettingError
from speil.testing.eventually import eventually
from speil.testing.samples import sample
from tests.shell.mesh import new_host

API_SERVER = ("10.96.0.1", 5001)


def rules(*own: str, metrics: Metrics | None = None, now: float = 0.0) -> DialRules:
    """Of a node that listens at `own` on port 5001, in a mesh that uses 6001 as well."""
    neighbourhood = Neighbourhood()
    neighbourhood.set_own(own or ("10.1.2.3", "fd00:1::7"))
    return DialRules(
        OpenGate(),
        (metrics or Metrics()).of(Libp2pSeries),
        neighbourhood,
        lambda: now,
        ports=(5001, 6001),
        never=frozenset({API_SERVER}),
    )


@pytest.mark.parametrize(
    ("told", "objection"),
    [
        ("/ip4/10.7.0.1/tcp/5001", None),
        ("/ip4/192.0.2.9/tcp/6001", None),
        ("/ip6/fd00:1::9/tcp/5001", None),
        ("/ip4/10.7.0.1/tcp/443", "port"),
        ("/ip4/10.7.0.1/tcp/10250", "port"),
        ("/ip4/10.7.0.1/tcp/0", "port"),
        ("/ip4/10.96.0.1/tcp/5001", "api_server"),
        ("/ip6/::ffff:10.96.0.1/tcp/5001", "api_server"),
        ("/ip4/169.254.169.254/tcp/5001", "link_local"),
        ("/ip6/::ffff:169.254.169.254/tcp/5001", "link_local"),
        ("/ip6/64:ff9b::a9fe:a9fe/tcp/5001", "link_local"),
        ("/ip6/2002:a9fe:a9fe::1/tcp/5001", "link_local"),
        ("/ip6/fe80::1/tcp/5001", "link_local"),
        ("/ip6/fd00:ec2::254/tcp/5001", "link_local"),
        ("/ip4/100.100.100.200/tcp/5001", "link_local"),
        ("/ip4/127.0.0.1/tcp/5001", "loopback"),
        ("/ip4/127.66.0.1/tcp/5001", "loopback"),
        ("/ip6/::1/tcp/5001", "loopback"),
        ("/ip6/::ffff:127.0.0.1/tcp/5001", "loopback"),
        ("/ip4/224.0.0.1/tcp/5001", "multicast"),
        ("/ip6/ff02::1/tcp/5001", "multicast"),
        ("/ip4/0.0.0.0/tcp/5001", "unspecified"),
        ("/ip4/0.1.2.3/tcp/5001", "unspecified"),
        ("/ip6/::/tcp/5001", "unspecified"),
        ("/ip4/255.255.255.255/tcp/5001", "reserved"),
        ("/ip4/240.0.0.1/tcp/5001", "reserved"),
        ("/dns4/metadata.google.internal/tcp/5001", "name"),
        ("/dns/localhost/tcp/5001", "name"),
        ("/ip4/10.7.0.1/udp/5001/quic-v1", "not_tcp"),
        ("/ip4/10.7.0.1/tcp/5001/ws", "not_tcp"),
    ],
)
def test_where_no_node_can_be_is_not_dialled(told: str, objection: str | None) -> None:
    metrics = Metrics()
    guard, address = rules(metrics=metrics), Multiaddr.parse(told)
    assert guard.objection(address) == objection
    assert guard.usable((address,)) == (() if objection else (address,))
    if objection:
        with pytest.raises(RefusedError, match=objection):
            guard.begin(address, named=False)
        assert sample(metrics, "speil_dials_refused_total", reason=objection) == 2
    guard.begin(address, named=True)  # what the operator names is dialled as it stands


def test_a_node_on_loopback_dials_loopback_on_any_port_and_nothing_else_on_other_ports() -> None:
    assert rules("::1").objection(Multiaddr.parse("/ip6/::1/tcp/40123")) is None
    guard = rules("127.0.0.1")
    assert guard.objection(Multiaddr.parse("/ip4/127.66.0.1/tcp/40123")) is None
    assert guard.objection(Multiaddr.parse("/ip4/10.7.0.1/tcp/40123")) == "port"
    assert guard.objection(Multiaddr.parse("/ip4/169.254.169.254/tcp/80")) == "link_local"


def test_ports_that_bootstrap_names_are_the_meshs_and_a_providers_port_does_not_matter() -> None:
    guard, told = rules(), Multiaddr.parse("/ip4/10.7.0.1/tcp/7001")
    assert guard.objection(told) == "port"
    assert guard.objection(told, any_port=True) is None
    guard.begin(Multiaddr.parse("/ip4/10.7.0.9/tcp/7001"), named=True)
    assert guard.objection(told) is None


def test_new_addresses_have_a_rate_and_those_that_were_reached_cost_nothing() -> None:
    metrics, now = Metrics(), 0.0
    neighbourhood = Neighbourhood()
    guard = DialRules(OpenGate(), metrics.of(Libp2pSeries), neighbourhood, lambda: now, ports=(1,))
    addresses = [Multiaddr.parse(f"/ip4/10.{number >> 8}.{number & 255}.1/tcp/1") for number in range(1000)]
    for address in addresses[:500]:  # an honest mesh: each answers
        guard.begin(address, named=False)
        guard.end(address, named=False, reached=True)

    def invented() -> int:
        begun = 0
        for address in addresses[500:]:
            try:
                guard.begin(address, named=False)
            except OwnLimitError:
                continue
            guard.end(address, named=False, reached=False)
            begun += 1
        return begun

    assert invented() == NEW_ADDRESSES_PER_MINUTE_MAX
    assert sample(metrics, "speil_dials_refused_total", reason="rate") == 500 - NEW_ADDRESSES_PER_MINUTE_MAX
    guard.begin(addresses[0], named=False)
    now = 30.0
    assert invented() == NEW_ADDRESSES_PER_MINUTE_MAX // 2


def invented_peers(count: int, rng: Random, form: str) -> tuple[PeerInfo, ...]:
    """Peers with four addresses each that nobody has."""
    return tuple(
        PeerInfo(
            PeerId.of_public_key(rng.randbytes(36)),
            tuple(Multiaddr.parse(form.format(rng.randrange(256), rng.randrange(1, 255), one)) for one in range(4)),
        )
        for _ in range(count)
    )


class Counting(TcpTransport):
    """Where dials went; nobody answers but whom the test made."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[Multiaddr] = []
        self.real: set[Multiaddr] = set()

    async def dial(self, address: Multiaddr) -> RawConnection:
        self.dialled.append(address)
        if address not in self.real:
            await asyncio.sleep(0)
            raise PeerUnreachableError("nobody is there")
        return await super().dial(address)


@pytest.mark.parametrize(
    ("form", "most", "reason"),
    [
        ("/ip4/127.{}.{}.9/tcp/{}", NEW_ADDRESSES_PER_MINUTE_MAX, "rate"),
        ("/ip4/10.{}.{}.9/tcp/{}", 0, "port"),
        ("/ip4/169.254.{}.{}/tcp/{}", 0, "link_local"),
    ],
)
async def test_answers_with_invented_peers_cost_a_bounded_number_of_dials(form: str, most: int, reason: str) -> None:
    rng, metrics, transport = Random(1), Metrics(), Counting()
    host = Host(
        Identity.generate(), ListenAddress("127.0.0.1", 0), agent_version="x", metrics=metrics, transport=transport
    )
    async with new_host() as liar, host:
        transport.real.update(liar.local.addresses)

        def lie(_: PeerInfo, question: Message) -> Message:
            return replace(question, closer_peers=invented_peers(100, rng, form))

        for one, answer in ((liar, lie), (host, lambda *_: None)):
            network = Libp2pNetwork(one, "/t", metrics, BorderRecord("", metrics))
            network.attach(answer, lambda *_: None, lambda *_: None)
        await host.connect(liar.local)
        table = RoutingTable(host.local.peer_id)
        table.add(liar.local, 0.0)
        lookups = Lookups(network, table, metrics, lambda: None)
        started = asyncio.get_running_loop().time()
        for _ in range(5):  # pulls of five layers
            await lookups.run(b"\x12\x20" + rng.randbytes(32), MessageType.GET_PROVIDERS)
        minutes = (asyncio.get_running_loop().time() - started) / 60
        invented = [address for address in transport.dialled if address not in transport.real]
        assert len(invented) <= most + math.ceil(most * minutes)
        if most:
            assert invented, "some are tried"
        else:
            assert sample(metrics, "speil_dials_refused_total", reason=reason) > 0
        assert liar.local.peer_id in table, "who is refused is not blamed on who is asked"


async def test_identify_with_invented_addresses_leaves_those_out() -> None:
    real = "/ip4/127.0.0.1/tcp/4001"
    told = [real, "/ip4/169.254.169.254/tcp/80", "/ip4/10.96.0.1/tcp/443", "/dns4/example.test/tcp/1"]
    metrics = Metrics()
    liar = Host(
        Identity.generate(),
        ListenAddress("127.0.0.1", 0),
        agent_version="x",
        metrics=Metrics(),
        announce=tuple(map(Multiaddr.parse, told)),
    )
    async with new_host(metrics=metrics) as host, liar:
        await liar.connect(host.local)
        await eventually(lambda: host.connections, what="it came in")
        assert host.connections[0].peer.info.addresses == (Multiaddr.parse(real),)
        for reason in ("link_local", "port", "name"):
            assert sample(metrics, "speil_dials_refused_total", reason=reason) == 1


async def test_a_peer_with_many_addresses_is_dialled_at_a_few_and_told_peers_not_at_all_ports() -> None:
    transport = Counting()
    host = Host(
        Identity.generate(), ListenAddress("127.0.0.1", 0), agent_version="x", metrics=Metrics(), transport=transport
    )
    async with host:
        (peer,) = invented_peers(1, Random(2), "/ip4/127.{}.{}.9/tcp/{}")
        many = replace(peer, addresses=peer.addresses * 25)
        with pytest.raises(Libp2pError):
            await host.connect(many)
        assert len(transport.dialled) <= 4


# --- who named it ---------------------------------------------------------------------------------------------


def test_who_names_peers_that_are_not_there_is_believed_less_and_others_are_not() -> None:
    rng = Random(3)
    known = invented_peers(1, rng, "/ip4/10.{}.{}.9/tcp/{}")
    hearsay = Hearsay(lambda peer: peer in known)
    for _ in range(UNREACHABLE_PER_MINUTE_MAX):
        (named,) = hearsay.believed("192.0.2.0/24", invented_peers(1, rng, "/ip4/10.{}.{}.9/tcp/{}"), 0.0)
        hearsay.unreachable(named.peer_id, 0.0)
        hearsay.unreachable(named.peer_id, 0.0)  # once
    more = invented_peers(5, rng, "/ip4/10.{}.{}.9/tcp/{}")
    assert hearsay.believed("192.0.2.0/24", (*more, *known), 0.0) == known, "whom we know, it may name"
    assert hearsay.believed("10.1.0.7", more, 0.0) == more
    assert hearsay.believed("192.0.2.0/24", more, 60.0) == more, "it has a new chance"


# --- settings -------------------------------------------------------------------------------------------------


def test_the_ports_of_a_mesh_can_be_named() -> None:
    assert port_list.parse("5001, 6001") == (5001, 6001)
    assert RouterSettings().router_dial_ports == ()
    for bad in ("0", "65536", "http", "-1", "5001-5003", "٥"):
        with pytest.raises(SettingError, match="not a port"):
            port_list.parse(bad)
