package nodelocal

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Servers that use the same interface know of each other by abstract UNIX
// sockets that are bound and never used (unix(7)). Their names are shared by
// exactly those who share the interface, because they belong to the network
// namespace; they need no directory that two pods would have to mount, and the
// kernel takes them back when a process ends, however it ends.
//
//	@resolute-nodelocal/INTERFACE/lock  whoever changes something about it
//	@resolute-nodelocal/INTERFACE/N     the Nth server that uses it

// socketName returns the name of a socket; the @ stands for the NUL of the
// abstract ones, in Go as in /proc/net/unix.
func socketName(iface, what string) string { return "@resolute-nodelocal/" + iface + "/" + what }

// bind takes a name, until the connection is closed.
func bind(name string) (net.PacketConn, error) {
	return net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: name})
}

// A lock is held for a few system calls. A holder that takes longer than
// lockPatience has been stopped, and a server that starts is to be there within
// a second.
const (
	lockPatience = 500 * time.Millisecond
	lockRetry    = 5 * time.Millisecond
)

// lock implements host.
func (linux) lock(iface string) (func(), error) {
	name := socketName(iface, "lock")
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(lockRetry) {
		c, err := bind(name)
		if err == nil {
			return func() { c.Close() }, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("no lock: %w", err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("another server has been busy with interface '%s' for more than %s: going on beside it", iface, lockPatience)
		}
	}
}

// join implements host.
func (linux) join(iface string) (lease, error) {
	others, err := members(iface)
	if err != nil {
		return nil, err
	}
	l := &socketLease{iface: iface}
	for _, n := range others {
		l.number = max(l.number, n+1)
	}
	if l.conn, err = bind(socketName(iface, strconv.Itoa(l.number))); err != nil {
		return nil, err
	}
	return l, nil
}

// socketLease implements lease.
type socketLease struct {
	iface  string
	number int
	conn   net.PacketConn
}

func (l *socketLease) rank() (newest, alone bool, err error) {
	all, err := members(l.iface)
	newest, alone = true, true
	for _, n := range all {
		newest = newest && n <= l.number
		alone = alone && n == l.number
	}
	return newest, alone, err
}

func (l *socketLease) leave() { l.conn.Close() }

// members returns the numbers of the servers that use an interface.
func members(iface string) ([]int, error) {
	// Of the thread rather than the process: tests give a thread a namespace.
	b, err := os.ReadFile("/proc/thread-self/net/unix")
	if err != nil {
		return nil, fmt.Errorf("other servers can't be seen: %w", err)
	}
	var all []int
	prefix := socketName(iface, "")
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if n, ok := strings.CutPrefix(fields[len(fields)-1], prefix); ok {
			if n, err := strconv.Atoi(n); err == nil {
				all = append(all, n)
			}
		}
	}
	return all, nil
}
