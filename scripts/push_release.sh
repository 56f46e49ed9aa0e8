#!/usr/bin/env bash
# push_release.sh DIST REPOSITORY: push the image and the chart of `make release` below a repository such as
# ghcr.io/OWNER. Prints image=DIGEST and chart=DIGEST. PLAIN_HTTP=1 for a registry without TLS. Needs skopeo and helm.
set -euo pipefail
dist=$1 repository=$2
version=$(cat "$dist/VERSION")

copy=(skopeo copy --quiet --all --preserve-digests)
plain=()
if [ "${PLAIN_HTTP:-}" = 1 ]; then
    copy+=(--dest-tls-verify=false)
    plain=(--plain-http)
fi
digest_file=$(mktemp)
trap 'rm -f "$digest_file"' EXIT
"${copy[@]}" --digestfile "$digest_file" "oci-archive:$dist/speil-image.tar" "docker://$repository/speil:$version" >&2
echo "image=$(cat "$digest_file")"

pushed=$(helm push "${plain[@]}" "$dist/speil-$version.tgz" "oci://$repository/charts" 2>&1)
echo "$pushed" >&2
chart=$(sed -n 's/^Digest: *//p' <<<"$pushed")
[ -n "$chart" ] || { echo "helm push named no digest" >&2; exit 1; }
echo "chart=$chart"
