//go:build tools

// Package build names what is built, so that go.mod and go.sum hold its versions and hashes.
package build

import _ "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
