//go:build !linux

package nodelocal

import (
	"errors"
	"net/netip"
)

// noHost is a host that the plugin can do nothing for.
type noHost struct{}

func newHost() host { return noHost{} }

var errNotLinux = errors.New("nodelocal needs Linux")

func (noHost) link(string) (link, bool, error)        { return link{}, false, errNotLinux }
func (noHost) addresses() ([]address, error)          { return nil, errNotLinux }
func (noHost) addLink(string, string) error           { return errNotLinux }
func (noHost) up(string) error                        { return errNotLinux }
func (noHost) addAddress(string, netip.Addr) error    { return errNotLinux }
func (noHost) delAddress(string, netip.Addr) error    { return errNotLinux }
func (noHost) delLink(string) error                   { return errNotLinux }
func (noHost) table(string) (table, error)            { return nil, errNotLinux }
func (noHost) setTable(string, []rule) error          { return errNotLinux }
func (noHost) delTable(string) error                  { return errNotLinux }
func (noHost) divert(netip.Addr, port) (bool, error)  { return false, errNotLinux }
func (noHost) lock(string) (unlock func(), err error) { return nil, errNotLinux }
func (noHost) join(string) (lease, error)             { return nil, errNotLinux }

func plainTCP() {}
