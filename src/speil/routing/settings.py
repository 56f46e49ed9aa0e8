"""The settings of routing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from speil.multiformats.multiaddr import Multiaddr
from speil.routing.bootstrap.base import Bootstrapper
from speil.routing.bootstrap.dns import DnsBootstrapper
from speil.routing.bootstrap.http import CertificateError, HttpBootstrapper
from speil.routing.bootstrap.static import StaticBootstrapper
from speil.setting import Kind, ListenAddress, SettingError, each, listen_address, one_of, setting, text


def _path(value: str) -> Path | None:
    return Path(value) if value else None


def _protocol_prefix(value: str) -> str:
    if value and not re.fullmatch(r"(/[a-z0-9][a-z0-9.-]*)+", value):
        raise SettingError(f"{value!r} is not a protocol prefix: say something like /spegel")
    return value


def _url(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^/\s?#]+(/[^\s?#]*)?(\?[^\s#]*)?", value):
        raise SettingError(f"{value!r} is not a URL: say something like http://10.0.0.7:5002")
    return value


def _port(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 0 < int(value) < 1 << 16:
        raise SettingError(f"{value!r} is not a port: say a number from 1 to 65535")
    return int(value)


directory = Kind("directory", _path)
port_list = each("ports", _port)
multiaddr_list = each("multiaddrs", Multiaddr.parse)
protocol_prefix = Kind("protocol prefix", _protocol_prefix)
url = Kind("URL", _url)


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """How this node joins the mesh."""

    router_addr: ListenAddress = setting(
        listen_address, ListenAddress("", 5001), help="Where libp2p listens; all nodes use the same port."
    )
    router_dial_ports: tuple[int, ...] = setting(
        port_list,
        (),
        help="More ports where nodes of the mesh listen. An address that a peer names is dialled on these, on the port "
        "of --router-addr and on those that the bootstrap names; any other is not.",
    )
    bootstrap_kind: str = setting(
        one_of("kubernetes", "file", "dns", "http", "static"), "static", help="Where the first peers come from."
    )
    dns_bootstrap_domain: str = setting(
        text, "", help="For dns: the name of a headless Service whose records are the nodes."
    )
    http_bootstrap_addr: ListenAddress | None = setting(
        listen_address, None, help="For http: where to serve this node's id, at /id. Empty: nowhere."
    )
    http_bootstrap_peer: str = setting(
        url,
        "",
        help="For http: where a peer serves its id: a base address, to which /id is added, or the whole URL. "
        "Empty: ask nobody.",
    )
    http_bootstrap_url: str = setting(
        url, "", help="For http: the whole URL of that page, as newer Spegels call it; in place of the peer's address."
    )
    http_bootstrap_cert_dir: Path | None = setting(
        directory,
        None,
        help="For http: files ca.crt (who may serve that page over https) and tls.crt, tls.key (this node's client "
        "certificate). Empty: the system's authorities, and no certificate.",
    )
    static_bootstrap_peers: tuple[Multiaddr, ...] = setting(
        multiaddr_list, (), help="For static: peers to dial, such as /ip4/10.0.0.7/tcp/5001, with or without /p2p."
    )
    data_dir: Path | None = setting(
        directory, None, help="Keeps the node's key and the peers it knew across restarts. Empty: nothing is kept."
    )
    dht_protocol_prefix: str = setting(
        protocol_prefix,
        "",
        help="Names the mesh: only peers with the same prefix route for each other. "
        "Empty: /speil/<region>, or /spegel where there is none.",
    )

    @property
    def is_leased(self) -> bool:
        """Whether the first peers come from a Lease (see `bootstrap.build`), and not from one of the kinds here."""
        return self.bootstrap_kind in ("kubernetes", "file")

    def protocol_prefix(self, region: str) -> str:
        """The prefix of the DHT's protocol ids: only nodes with the same one form a mesh."""
        return self.dht_protocol_prefix or (f"/speil/{region}" if region else "/spegel")

    def bootstrapper(self) -> Bootstrapper:
        """The bootstrapper of a kind without a Lease. Raises SettingError where a setting that it needs is missing."""
        if self.bootstrap_kind == "dns":
            if not self.dns_bootstrap_domain:
                raise SettingError("--bootstrap-kind dns needs --dns-bootstrap-domain")
            return DnsBootstrapper(self.dns_bootstrap_domain, self.router_addr.port)
        if self.bootstrap_kind == "http":
            return self._http_bootstrapper()
        return StaticBootstrapper(self.static_bootstrap_peers)

    def _http_bootstrapper(self) -> HttpBootstrapper:
        peer, whole = self.http_bootstrap_peer, self.http_bootstrap_url
        if peer and whole and peer != whole:
            raise SettingError("--http-bootstrap-peer and --http-bootstrap-url name two pages: set one of them")
        try:
            return HttpBootstrapper(
                whole or peer,
                self.http_bootstrap_addr,
                router_port=self.router_addr.port,
                cert_dir=self.http_bootstrap_cert_dir,
            )
        except CertificateError as error:
            raise SettingError(f"--http-bootstrap-cert-dir: {error}") from error
