//go:build tools

// Package tools pins the programs that are built from upstream's modules as they are.
package tools

import (
	_ "go.etcd.io/etcd/server/v3"
)
