package wire

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// tlsConfig returns the configuration for DoT. Without a name to verify, the
// IP address is verified.
func tlsConfig(o *Options) *tls.Config {
	if o.TLS.ServerName != "" || o.TLS.InsecureSkipVerify {
		return o.TLS
	}
	cfg := o.TLS.Clone()
	if ap, err := netip.ParseAddrPort(o.Addr); err == nil { // checked by New
		cfg.ServerName = ap.Addr().WithZone("").String() // no certificate has a zone
	}
	return cfg
}

// prepareDial makes what ends the dialing.
func (c *streamConn) prepareDial() {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	c.dialCtx, c.stop = ctx, cancel
}

// run is the connection's goroutine: it makes the connection, starts the
// writer, and reads until the end.
func (c *streamConn) run() {
	raw, nc, err := c.dial(c.dialCtx)
	c.m.mu.Lock()
	if c.state == connDead { // ended meanwhile
		c.m.mu.Unlock()
		if raw != nil {
			raw.Close()
		}
		return
	}
	now := time.Now()
	if err != nil {
		c.end(err, now)
		c.m.dialFailed(now)
		c.m.mu.Unlock()
		return
	}
	c.stop()
	c.raw, c.nc = raw, nc
	c.state = connOpen
	// The time of dialing is not silence of the connection: the queries that
	// waited for it count as sent now, right after the peer was heard.
	c.heard.Store(int64(now.Sub(c.born)) - 1)
	if len(c.table) > 0 {
		c.unheard, c.busySince = now, now
	}
	c.wakeIn(c.m.silence(), now)
	c.m.up.opened(TCP)
	c.m.wg.Go(c.write)
	c.m.mu.Unlock()

	err = c.read()
	c.lost(err)
}

// dial connects, and shakes hands if it is for TLS.
func (c *streamConn) dial(ctx context.Context) (raw, nc net.Conn, err error) {
	o := &c.m.up.opts
	if o.dial != nil {
		raw, err = o.dial(ctx)
	} else {
		var d net.Dialer
		if o.Source != nil {
			d.LocalAddr = &net.TCPAddr{IP: o.Source}
		}
		raw, err = d.DialContext(ctx, "tcp", o.Addr)
	}
	if err != nil {
		return nil, nil, err
	}
	if c.m.tls == nil {
		return raw, raw, nil
	}
	t := tls.Client(raw, c.m.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		raw.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, fmt.Errorf("%w: %w", ErrTLS, err)
	}
	return raw, t, nil
}

// write is the writing goroutine. What has come together while it was busy is
// written at once, which saves calls and, for TLS, records. It is also who
// closes the connection for good.
func (c *streamConn) write() {
	defer c.m.up.closed(TCP)
	defer c.nc.Close()
	var out []byte
	for {
		select {
		case <-c.wake:
		case <-c.dead:
			return
		}
		if out = c.batch(out[:0]); len(out) == 0 {
			continue
		}
		_ = c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := c.nc.Write(out); err != nil {
			c.lost(err)
			return
		}
		if cap(out) > 1<<16 {
			out = nil // a burst is not kept for ever
		}
	}
}

// batch appends all queued queries to out, without those withdrawn meanwhile.
func (c *streamConn) batch(out []byte) []byte {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	now := time.Now()
	for i, q := range c.queue {
		if a := c.table[q.id]; a != nil {
			out = append(out, q.frame.b...)
			if a.WroteAt.IsZero() {
				a.WroteAt = now
			}
		} else {
			delete(c.table, q.id)
		}
		q.frame.release()
		c.queue[i] = queued{}
	}
	c.queue = c.queue[:0]
	return out
}
