package retry

import (
	"hash/maphash"
	"math/bits"
	"net/netip"

	"github.com/miekg/dns"
)

// seeds makes the hashes of each table different ones, so that nobody can aim at
// a place in it.
type seeds struct {
	name, addr maphash.Seed
}

func newSeeds() seeds { return seeds{maphash.MakeSeed(), maphash.MakeSeed()} }

// hash returns the hash of a client's address and a name, which A and AAAA
// share and every other type has for itself, and that of the address alone.
// IPv4-mapped addresses are IPv4 addresses; zones don't count.
func (s *seeds) hash(addr netip.Addr, qtype uint16, name string) (base, address uint64) {
	a := addr.As16()
	address = maphash.Bytes(s.addr, a[:])
	class := uint64(0)
	if qtype != dns.TypeA && qtype != dns.TypeAAAA {
		class = uint64(qtype) + 1
	}
	base = mix(address^s.lower(name), class)
	if base == 0 {
		base = 1 // 0 is the zero Ticket
	}
	return base, address
}

// lower returns the hash of the lower-cased name.
func (s *seeds) lower(name string) uint64 {
	upper := false
	for i := 0; i < len(name); i++ {
		upper = upper || name[i]-'A' <= 'Z'-'A'
	}
	if !upper {
		return maphash.String(s.name, name)
	}
	// A name has 255 octets at most, but 1004 characters when all are escaped.
	var buf [1004]byte
	n := copy(buf[:], name)
	for i, c := range buf[:n] {
		if c-'A' <= 'Z'-'A' {
			buf[i] = c + 'a' - 'A'
		}
	}
	return maphash.Bytes(s.name, buf[:n])
}

// mix returns a hash of the hash h and x. The constants are odd and without
// structure (fractional digits of the golden ratio and of pi).
func mix(h, x uint64) uint64 {
	hi, lo := bits.Mul64(h^0x243f6a8885a308d3, (x+1)*0x9e3779b97f4a7c15)
	return hi ^ lo
}
