//go:build tools

// The programs that are built from other modules' packages as they are; named
// here so that go.mod and go.sum cover them.
package main

import (
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/images/agnhost"
)
