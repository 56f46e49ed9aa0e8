"""What a node is configured with: its first process, CNI, containerd and the kubelet."""

from __future__ import annotations

from typing import Any

from tests.cluster.lab.layout import CONTROL, NodePlan

PAUSE_REFERENCE = "lab.test/pause:1"
CNI_PROGRAMS = "/usr/lib/cni"

# bash stays as the first process: it reaps shims whose parent has gone
INIT = """set -e
mount --make-rslave /
hostname {name}
mount -t proc proc /proc
mount -t overlay overlay -o lowerdir=/etc,upperdir={folder}/etc,workdir={folder}/etc-work /etc
{cgroups}mount --bind {folder}/run /run
mount --bind {folder}/varlib /var/lib
mount --bind {folder}/varlog /var/log
mkdir -p /run/netns /run/lock /etc/cni/net.d /etc/containerd/certs.d
cp {folder}/cni.conflist /etc/cni/net.d/10-lab.conflist
cp {folder}/config.toml /etc/containerd/config.toml
cp {folder}/hosts /etc/hosts
if [ ! -e /etc/lab-authority ]; then
    cat {authority} >> /etc/ssl/certs/ca-certificates.crt
    touch /etc/lab-authority
fi
mount --make-rshared /
touch {folder}/up
set +e
trap : CHLD
while :; do
    sleep 86400 &
    wait $!
done
"""

CONTAINERD_CONFIG = """version = 3
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.blockfile",
]
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.nri.v1.nri"]
disable = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{shim}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def cni_config(plan: NodePlan) -> dict[str, Any]:
    """A bridge with the node's pods, and host ports."""
    addresses = {"type": "host-local", "ranges": [[{"subnet": f"{plan.pods}.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": addresses,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "lab", "plugins": [bridge, ports]}


# Of an age that every image has when the kubelet looks: it looks when it starts, and then every five minutes.
COLLECT_IMAGES = {"imageMinimumGCAge": "1ns", "imageMaximumGCAge": "2ns"}


def kubelet_config(plan: NodePlan, authority: str) -> dict[str, Any]:
    """As kubeadm's, but for cgroup v1, which this may be, and for images, which are collected on demand."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": authority},
        },
        "authorization": {"mode": "Webhook"},
        "localStorageCapacityIsolation": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "1Mi"},
        "resolvConf": "",
        "clusterDNS": [CONTROL],
        "clusterDomain": "cluster.local",
        "address": plan.address,
        "healthzBindAddress": "127.0.0.1",
        "volumePluginDir": "/var/lib/kubelet/plugins-exec",
        "registerNode": True,
        "maxPods": 60,
        # a mirror is asked for each pull at once; kubelets pull one image after the other by default
        "serializeImagePulls": True,
        "nodeStatusUpdateFrequency": "4s",
    }
