//go:build tools

// Package tools pins the programs that are built from upstream's modules as they are.
package tools

import (
	_ "sigs.k8s.io/kwok/cmd/kwok"
)
