package stream

import (
	"math"
	"net"
	"syscall"
	"time"
)

// openFiles is how many files this process may open; the Go runtime has raised it as far as it is allowed.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxUint64
	}
	return limit.Cur
}

const tcpUserTimeout = 0x12 // TCP_USER_TIMEOUT, which package syscall does not name

// tuneSocket lets the kernel find peers that vanished without a FIN, which neither reads nor small writes show. Only a
// hint: what fails is left as it is, for the write deadline still holds.
func tuneSocket(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3})
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, 30_000) // ms
	})
}
