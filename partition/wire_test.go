package partition_test

import (
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"unsafe"
)

// received is how many bytes the sockets of this process have got from the brokers so far, by the kernel's own count
// (tcp_info.tcpi_bytes_received), so that it holds for any back end and any client. Sockets that were closed are left
// out: measure while they are open.
func received(t testing.TB, brokers []string) (total int64) {
	t.Helper()
	sockets(t, brokers, func(fd int) {
		var info [256]byte
		size := uint32(len(info))
		if _, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO,
			uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&size)), 0); errno == 0 && size >= 136 {
			total += *(*int64)(unsafe.Pointer(&info[128]))
		}
	})
	return total
}

// sockets calls visit with each socket of this process that is connected to one of the brokers.
func sockets(t testing.TB, brokers []string, visit func(fd int)) {
	t.Helper()
	ports := map[int]bool{}
	for _, b := range brokers {
		_, port, err := net.SplitHostPort(b)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		ports[n] = true
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("NOT RUN: the process's sockets are known on Linux only: %v", err)
	}
	for _, f := range fds {
		fd, _ := strconv.Atoi(f.Name())
		peer, err := syscall.Getpeername(fd)
		if err != nil {
			continue
		}
		var port int
		switch a := peer.(type) {
		case *syscall.SockaddrInet4:
			port = a.Port
		case *syscall.SockaddrInet6:
			port = a.Port
		}
		if ports[port] {
			visit(fd)
		}
	}
}
