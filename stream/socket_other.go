//go:build !linux

package stream

import (
	"net"
	"time"
)

// tuneSocket lets the kernel find peers that vanished without a FIN. Only Linux has TCP_USER_TIMEOUT.
func tuneSocket(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3})
	}
}
