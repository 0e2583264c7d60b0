package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

var (
	// ErrClosed is delivered for attempts that were in flight when the
	// Upstream was closed, and for all that are sent after Close or Retire.
	ErrClosed = errors.New("wire: upstream closed")
	// ErrReplaced is delivered for attempts on a socket or connection that was
	// given up. It says nothing about the query and next to nothing about the
	// upstream: send again, here or elsewhere, and do not count it as lost.
	ErrReplaced = errors.New("wire: connection replaced")
	// ErrConnClosed is delivered when the peer ended the connection (FIN, RST,
	// a write that failed) while the attempt was on it. It is an ErrReplaced:
	// errors.Is(ErrConnClosed, ErrReplaced) holds.
	ErrConnClosed error = connClosed{}
	// ErrTimeout is delivered when a socket that had been taken out of use was
	// closed after waiting long for its last replies.
	ErrTimeout = errors.New("wire: no reply")
	// ErrTLS is the error of a handshake that failed, with the reason wrapped
	// beside it. A handshake that took too long is a time-out instead.
	ErrTLS = errors.New("wire: TLS handshake")
	// ErrMalformed is a reply that matches the query and cannot be unpacked.
	ErrMalformed = errors.New("wire: malformed reply")
	// ErrBadQuery is delivered for a query that is not one message with one
	// question of at most 65535 bytes.
	ErrBadQuery = errors.New("wire: bad query")
	// ErrBusy is delivered when no message ID is free.
	ErrBusy = errors.New("wire: too many queries in flight")
)

// connClosed makes ErrConnClosed a kind of ErrReplaced.
type connClosed struct{}

func (connClosed) Error() string        { return "wire: connection closed by the peer" }
func (connClosed) Is(target error) bool { return target == ErrReplaced }

// Reason is a short word for an error, for a metric label or a log line.
type Reason string

// The reasons. Blame for ReasonClosed, ReasonReplaced, ReasonLocal and
// ReasonQuery does not belong to the upstream.
const (
	ReasonNone        Reason = ""            // no error
	ReasonTimeout     Reason = "timeout"     // dial or handshake took too long, or ErrTimeout
	ReasonRefused     Reason = "refused"     // ICMP port unreachable, RST to a SYN
	ReasonUnreachable Reason = "unreachable" // ICMP host or net unreachable, prohibited, no route
	ReasonTLS         Reason = "tls"         // handshake or certificate
	ReasonClosed      Reason = "closed"      // ErrClosed, ErrConnClosed, FIN or RST
	ReasonReplaced    Reason = "replaced"    // ErrReplaced
	ReasonMalformed   Reason = "malformed"   // reply that does not unpack
	ReasonLocal       Reason = "local"       // this machine: no descriptors, buffers, ports; ErrBusy
	ReasonQuery       Reason = "query"       // ErrBadQuery
	ReasonOther       Reason = "other"       // anything else
)

// Class returns the reason for an error delivered by wire or returned by Unpack.
func Class(err error) Reason {
	if err == nil {
		return ReasonNone
	}
	switch {
	case errors.Is(err, ErrConnClosed), errors.Is(err, ErrClosed):
		return ReasonClosed
	case errors.Is(err, ErrReplaced):
		return ReasonReplaced
	case errors.Is(err, ErrMalformed):
		return ReasonMalformed
	case errors.Is(err, ErrBadQuery):
		return ReasonQuery
	case errors.Is(err, ErrBusy):
		return ReasonLocal
	case isTimeout(err):
		return ReasonTimeout
	}
	if r := classErrno(err); r != ReasonNone {
		return r
	}
	switch {
	case errors.Is(err, ErrTLS):
		return ReasonTLS
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return ReasonClosed
	}
	return ReasonOther
}

func isTimeout(err error) bool {
	if errors.Is(err, ErrTimeout) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	var t interface{ Timeout() bool }
	// EAGAIN says of itself that it is a time-out. Here it is a full buffer.
	return errors.As(err, &t) && t.Timeout() && !errors.Is(err, syscall.EAGAIN)
}

func classErrno(err error) Reason {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return ReasonNone
	}
	switch errno {
	case syscall.ECONNREFUSED:
		return ReasonRefused
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.EACCES, syscall.ENOPROTOOPT:
		// EACCES is ICMPv6 "administratively prohibited", ENOPROTOOPT is ICMP
		// protocol unreachable (Linux, icmp_err_convert and icmpv6_err_convert).
		return ReasonUnreachable
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED:
		return ReasonClosed
	case syscall.ETIMEDOUT:
		return ReasonTimeout
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN,
		syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EINVAL, syscall.EMSGSIZE, syscall.EPERM:
		// EPERM is what a local packet filter makes of a send.
		return ReasonLocal
	}
	return ReasonNone
}
