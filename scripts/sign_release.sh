#!/usr/bin/env bash
# sign_release.sh DIST REPOSITORY IMAGE_DIGEST CHART_DIGEST: sign image and chart with cosign, keyless: the certificate
# names the workflow. The SBOM is attached to the image as an attestation. It runs in the release workflow alone: the
# identity is the runner's.
set -euo pipefail
dist=$1 repository=$2 image=$3 chart=$4

cosign sign --yes --recursive "$repository/speil@$image"
cosign sign --yes "$repository/charts/speil@$chart"
cosign attest --yes --type cyclonedx --predicate "$dist/speil.cdx.json" "$repository/speil@$image"
