package nodelocal

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Two servers that listen on the same address share what arrives there
// (SO_REUSEPORT, socket(7)), and what the kernel has put into the queue of one
// of them is lost when that one closes it. So whoever leaves first has his
// queues bypassed, and empties them.

// divert implements host.
func (linux) divert(a netip.Addr, p port) (bool, error) {
	own, others, err := listeners(a, p)
	if err != nil || len(own) == 0 || others == 0 {
		return false, err
	}
	for _, fd := range own {
		if p.proto == "udp" {
			err = bypassUDP(fd, a)
		} else {
			err = bypassTCP(fd, len(own))
		}
		if err != nil {
			return false, fmt.Errorf("%s port %d of %s: %w", p.proto, p.number, a, err)
		}
	}
	return true, nil
}

// bypassUDP connects a socket to a peer that doesn't exist, so that datagrams of
// all others are for the other sockets on the address (udp4_lib_lookup2 in
// net/ipv4/udp.c). What is in the queue stays, and answers can be sent still.
func bypassUDP(fd int, a netip.Addr) error {
	const tcpmux = 1 // nobody asks from there
	if a.Is4() {
		return unix.Connect(fd, &unix.SockaddrInet4{Port: tcpmux, Addr: a.As4()})
	}
	return unix.Connect(fd, &unix.SockaddrInet6{Port: tcpmux, Addr: a.As16()})
}

// bypassTCP makes the kernel choose another listener for new connections: not
// one of the first own of the address, which are those of this process, because
// they are in the order in which they have come (reuseport_add_sock in
// net/core/sock_reuseport.c). When there is none in that place any more, because
// this process has gone, the kernel chooses as ever.
func bypassTCP(fd, own int) error {
	filter := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(own)}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &filter})
}

// plainTCP makes the listeners of this process, from now on, ones that bypassTCP
// can do something about. Those of Go are of MPTCP where the kernel has it, and it
// takes no filters for them. The pods of a node have one path to it anyway.
func plainTCP() {
	const variable, setting = "GODEBUG", "multipathtcp"
	switch v := os.Getenv(variable); {
	case strings.Contains(v, setting): // whoever has set it knows why
	case v == "":
		os.Setenv(variable, setting+"=0")
	default:
		os.Setenv(variable, v+","+setting+"=0")
	}
}

// What /proc/net calls the state of a socket that anybody can reach
// (include/net/tcp_states.h): of TCP, LISTEN; of UDP, the same as CLOSE, where a
// connected one has ESTABLISHED.
var reachable = map[string]string{"tcp": "0A", "udp": "07"}

// listeners returns the sockets of this process that are bound to an address and
// port, and how many of other processes are.
func listeners(a netip.Addr, p port) (own []int, others int, err error) {
	file := "/proc/thread-self/net/" + p.proto
	if a.Is6() {
		file += "6"
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, 0, err
	}
	fds, err := sockets()
	if err != nil {
		return nil, 0, err
	}
	local := procAddress(a, p.number)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 10 || f[1] != local || f[3] != reachable[p.proto] {
			continue
		}
		if fd, ok := fds[f[9]]; ok {
			own = append(own, fd)
		} else {
			others++
		}
	}
	return own, others, nil
}

// procAddress returns an address and port as in /proc/net: in words of the
// machine's byte order.
func procAddress(a netip.Addr, number uint16) string {
	s := ""
	for b := a.AsSlice(); len(b) > 0; b = b[4:] {
		s += fmt.Sprintf("%08X", binary.NativeEndian.Uint32(b))
	}
	return fmt.Sprintf("%s:%04X", s, number)
}

// sockets returns the sockets of this process by their inode numbers.
func sockets() (map[string]int, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	fds := map[string]int{}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed since
		}
		inode, ok := strings.CutPrefix(target, "socket:[")
		if fd, err := strconv.Atoi(e.Name()); ok && err == nil {
			fds[strings.TrimSuffix(inode, "]")] = fd
		}
	}
	return fds, nil
}
