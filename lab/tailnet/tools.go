//go:build tools

// Package tools names what is built of this module, so that go.sum pins all of it.
package tools

import (
	_ "github.com/juanfont/headscale/cmd/headscale"
	_ "tailscale.com/cmd/tailscaled"
	_ "tailscale.com/cmd/tailscale/cli"
)
