//go:build !linux

package stream

import (
	"math"
	"net"
	"time"
)

// openFiles is how many files this process may open, as far as we can tell.
func openFiles() uint64 { return math.MaxUint64 }

// tuneSocket lets the kernel find peers that vanished without a FIN. Only Linux has TCP_USER_TIMEOUT.
func tuneSocket(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3})
	}
}
