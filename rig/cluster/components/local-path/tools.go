//go:build tools

// Package tools pins the programs that are built from upstream's modules as they are.
package tools

import (
	_ "github.com/rancher/local-path-provisioner"
)
