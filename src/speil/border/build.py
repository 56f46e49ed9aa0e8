"""Makes the border of a node's region from its settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from speil.border.gate import RegionGate
from speil.border.http import HttpDoor
from speil.border.node_token_file import NodeTokenFile
from speil.border.record import BorderRecord
from speil.border.secret_file import SecretFile
from speil.multiformats.peer_id import PeerId
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.region.identity import RegionIdentity
from speil.region.policy import Policy, protocols_of
from speil.region.secret import PeerKeys, SecretError
from speil.region.settings import RegionSettings
from speil.setting import SettingError

log = get_log("region")


@dataclass(frozen=True, slots=True)
class Border:
    """What keeps other regions out: the rule, the secret (None: the region has none), the record of rejections.

    `node_name` is the name that a node token has to carry, "" where it is not known for sure.
    """

    identity: RegionIdentity
    policy: Policy
    secret: SecretFile | None
    record: BorderRecord
    node_name: str = ""

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocol ids that name region, zone and topology label in libp2p's identify."""
        return protocols_of(self.identity.region, self.identity.zone, self.identity.label)

    def gate(self) -> RegionGate:
        """libp2p's connection gate."""
        return RegionGate(self.policy, self.record)

    def noise_keys(self) -> tuple[bytes, ...]:
        """The keys of the Noise handshake in force now, the first one signs; empty without a secret."""
        return self.secret.secret.noise_keys if self.secret else ()

    def door(self, local: PeerId, data_dir: Path | None, credentials: Callable[[], PeerKeys | None]) -> HttpDoor:
        """The registry port's door; see HttpDoor."""
        return HttpDoor(
            self.policy,
            local,
            self.secret,
            self.record,
            self.identity.zone,
            credentials=credentials,
            node_tokens=NodeTokenFile(self.node_name, data_dir),
            data_dir=data_dir,
        )

    def check_own_addresses(self, hosts: Sequence[str]) -> None:
        """Raises SettingError where none of this node's addresses is in its region's networks."""
        if hosts and not any(map(self.policy.covers, hosts)):
            raise SettingError(
                f"--region-networks: none of this node's addresses ({', '.join(hosts)}) is in the networks of region "
                f"{self.identity.region or '(none)'}: its region is set wrong, or a network is missing"
            )

    def log_identity(self) -> None:
        """Log which region this node is in and where that came from, and what an operator should look at."""
        region = self.identity
        log.info(
            "this node's region",
            region=region.region or "(none)",
            region_from=region.region_source,
            zone=region.zone or "(none)",
            zone_from=region.zone_source,
            topology_region=region.label or "(none)",
            lease=region.lease,
        )
        for note in region.notes:
            log.warning(note)
        if region.region and self.secret is None:
            log.info("the region has no secret: any node that names the region may join (--region-secret-file)")

    def log_what_is_open(self, door: HttpDoor, *, resolve_tags: bool) -> None:
        """Log what a stranger who reaches the ports could do, and the setting that prevents it."""
        if resolve_tags and not door.proves:
            log.warning(
                "peers answer tags without proof: a stranger who reaches this region's ports can answer a tag that "
                "nobody else holds with an image of its choice",
                what_to_do="set --region-secret-file (or basic auth), restrict the ports by a NetworkPolicy, or set "
                "--resolve-tags=false",
            )
        if self.secret is not None and not self.node_name:
            log.warning(
                "this node's name is not known: the node token of any node of the region is accepted",
                what_to_do="set --node-name (NODE_NAME), here and for speil configuration",
            )


def build_border(
    settings: RegionSettings, identity: RegionIdentity, metrics: Metrics, *, shares_its_mesh: bool
) -> Border:
    """The border of the region `identity`. Raises SettingError where its secret can't be used.

    `shares_its_mesh`: nodes that know no regions route in the same mesh, as while a cluster migrates from Spegel. Peers
    that name no region are then admitted.
    """
    admits_unnamed = shares_its_mesh or not identity.region
    policy = Policy(identity.region, admits_unnamed, settings.region_networks, identity.label)
    record = BorderRecord(identity.region, metrics)
    return Border(identity, policy, _secret(settings, identity.region), record, settings.token_name)


def _secret(settings: RegionSettings, region: str) -> SecretFile | None:
    if not settings.region_secret_file:
        return None
    try:
        return SecretFile(Path(settings.region_secret_file), region)
    except SecretError as error:
        raise SettingError(f"--region-secret-file: {error}") from error
