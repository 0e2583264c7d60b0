package fault

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listener accepts the TCP connections of an upstream, or pretends that the host
// is gone.
type listener struct {
	u     *Upstream
	tcp   *net.TCPListener
	ended sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool
	open    chan struct{} // closed while connections are accepted
	fillers []int         // connections that fill the queue, so that SYNs are dropped
	closed  bool
}

// backlog is the length of the queue while connections are accepted.
const backlog = 4096

func listen(u *Upstream) (*listener, error) {
	tcp, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.MustParseAddrPort(u.Addr)))
	if err != nil {
		return nil, err
	}
	l := &listener{u: u, tcp: tcp, conns: map[net.Conn]bool{}, open: make(chan struct{})}
	close(l.open)
	l.ended.Go(l.accept)
	return l, nil
}

func (l *listener) accept() {
	for {
		l.mu.Lock()
		open, closed := l.open, l.closed
		l.mu.Unlock()
		if closed {
			return
		}
		<-open
		conn, err := l.tcp.Accept()
		if err != nil {
			continue // closed, or to be a black hole
		}
		l.mu.Lock()
		if l.closed {
			conn.Close()
		} else {
			l.conns[conn] = true
			l.u.Conns.Add(1)
			l.ended.Go(func() { l.serve(conn) })
		}
		l.mu.Unlock()
	}
}

func (l *listener) serve(raw net.Conn) {
	conn := raw
	if l.u.tls != nil {
		conn = tls.Server(raw, l.u.tls)
	}
	defer func() {
		conn.Close()
		l.mu.Lock()
		delete(l.conns, raw)
		l.mu.Unlock()
	}()
	var length [2]byte
	buf := make([]byte, 64<<10)
	r := bufio.NewReader(conn)
	for {
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return
		}
		msg := buf[:binary.BigEndian.Uint16(length[:])]
		if _, err := io.ReadFull(r, msg); err != nil {
			return
		}
		l.u.handle(msg, func(msg []byte) {
			raw.SetWriteDeadline(time.Now().Add(time.Second)) // of a client that does not read
			conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
		})
	}
}

// blackhole makes the kernel drop each SYN, or accepts connections again. A
// listener whose queue is full does that: the queue is made as short as it can be
// and filled with connections that nobody accepts.
func (l *listener) blackhole(on bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if on == (len(l.fillers) > 0) {
		return nil
	}
	if !on {
		for _, fd := range l.fillers {
			unix.Close(fd)
		}
		l.fillers = nil
		l.tcp.SetDeadline(time.Time{})
		close(l.open)
		return l.setBacklog(backlog)
	}
	l.open = make(chan struct{})
	l.tcp.SetDeadline(time.Unix(1, 0)) // ends the Accept of now
	if err := l.setBacklog(0); err != nil {
		return err
	}
	addr := netip.MustParseAddrPort(l.u.Addr)
	for {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		l.fillers = append(l.fillers, fd)
		unix.CloseOnExec(fd)
		if err := unix.SetNonblock(fd, true); err != nil {
			return err
		}
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()})
		if err != nil && err != unix.EINPROGRESS {
			return err
		}
		// Over the loopback, the handshake is done within the call, or never.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 50)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n == 0 {
			return nil
		}
	}
}

func (l *listener) setBacklog(n int) error {
	raw, err := l.tcp.SyscallConn()
	if err != nil {
		return err
	}
	var listenErr error
	err = raw.Control(func(fd uintptr) { listenErr = syscall.Listen(int(fd), n) })
	if err != nil {
		return err
	}
	return listenErr
}

func (l *listener) close() {
	l.mu.Lock()
	l.closed = true
	l.tcp.Close()
	for _, fd := range l.fillers {
		unix.Close(fd)
	}
	if len(l.fillers) > 0 {
		close(l.open)
		l.fillers = nil
	}
	for conn := range l.conns {
		conn.Close()
	}
	l.mu.Unlock()
	l.ended.Wait()
}
