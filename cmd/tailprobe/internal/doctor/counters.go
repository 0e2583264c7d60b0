package doctor

import (
	"fmt"
	"strconv"
	"strings"
)

// Counter is a counter of the kernel, of this network namespace.
type Counter struct {
	Name   string `json:"name"`
	File   string `json:"file"`
	Before uint64 `json:"before"` // when the doctor began
	After  uint64 `json:"after"`  // when it had asked all name servers
}

// The kernel's files.
const (
	conntrackFile = "/proc/net/stat/nf_conntrack"
	snmpFile      = "/proc/net/snmp"
	snmp6File     = "/proc/net/snmp6"
)

// watched are the counters that tell of lost packets.
var watched = []struct{ name, file, means, do string }{
	{"insert_failed", conntrackFile,
		"Packets are dropped because two of one flow met in conntrack: the race of A and AAAA from one port, a lookup of 5 s for each.",
		"NodeLocal DNSCache or Resolute's nodelocal (NOTRACK), TCP (use-vc), or single-request-reopen."},
	{"drop", conntrackFile,
		"Packets are dropped because the conntrack table is full or memory is short.",
		"Raise net.netfilter.nf_conntrack_max, or take DNS out of conntrack: NodeLocal DNSCache or Resolute's nodelocal."},
	{"Udp InErrors", snmpFile,
		"Packets that had arrived are thrown away: a full receive buffer, or a bad checksum.",
		"Look at the next counters for the reason."},
	{"Udp RcvbufErrors", snmpFile,
		"A socket's receive buffer was full when a packet came: its program reads too slowly, or hasn't the CPU time to.",
		"Give the pod more CPU time, or raise net.core.rmem_default and rmem_max."},
	{"Udp InCsumErrors", snmpFile,
		"Packets arrive damaged: often the checksum offloading of a virtual network device.",
		"Try ethtool -K DEVICE tx off on the node's overlay device."},
	{"Udp6InErrors", snmp6File, "As Udp InErrors, over IPv6.", "Look at the next counter for the reason."},
	{"Udp6RcvbufErrors", snmp6File, "As Udp RcvbufErrors, over IPv6.", "As for Udp RcvbufErrors."},
}

// readCounters returns the counters that can be read, by name.
func (x *examination) readCounters() map[string]uint64 {
	all := map[string]uint64{}
	for file, parse := range map[string]func(string, map[string]uint64){
		conntrackFile: parseConntrack, snmpFile: parseSNMP, snmp6File: parseSNMP6,
	} {
		if text, err := x.read(file); err == nil {
			parse(text, all)
		}
	}
	return all
}

// compareCounters looks for counters that rose.
func (x *examination) compareCounters(before, after map[string]uint64) {
	for _, w := range watched {
		b, ok1 := before[w.name]
		a, ok2 := after[w.name]
		if !ok1 || !ok2 {
			continue
		}
		x.Counters = append(x.Counters, Counter{Name: w.name, File: w.file, Before: b, After: a})
		id := counterID(w.name)
		switch {
		case a > b:
			x.find(id, Problem, w.file, fmt.Sprintf("%s rose from %d to %d while the doctor was looking", w.name, b, a), w.means, w.do)
		case a > 0:
			x.find(id, Note, w.file, fmt.Sprintf("%s is %d since the start of this network namespace; it doesn't rise now", w.name, a), w.means,
				"Run the doctor again while lookups are slow, and with tailprobe as load beside it. "+w.do)
		}
	}
	if _, ok := after["insert_failed"]; !ok {
		x.find("conntrack-unreadable", Note, conntrackFile, "it can't be read here, or conntrack isn't used in this network namespace",
			"Whether conntrack loses packets can't be told from this pod: they may get lost on the node.",
			"Run the doctor on the node (hostNetwork), too.")
	}
}

// counterID makes the name of a counter the ID of a finding.
func counterID(name string) string {
	switch name {
	case "insert_failed", "drop":
		return "conntrack-" + strings.ReplaceAll(name, "_", "-")
	}
	id := strings.ToLower(strings.ReplaceAll(name, " ", ""))
	for _, word := range []string{"in", "rcvbuf", "incsum"} {
		if kind, ok := strings.CutSuffix(id, word+"errors"); ok {
			id = kind + "-" + strings.Replace(word, "incsum", "in-csum", 1) + "-errors"
		}
	}
	return id
}

// parseConntrack reads a table with names in the first line and, in a line for
// each CPU, hexadecimal numbers (net/netfilter/nf_conntrack_standalone.c).
func parseConntrack(text string, into map[string]uint64) {
	lines := strings.Split(text, "\n")
	names := strings.Fields(lines[0])
	for _, line := range lines[1:] {
		for i, f := range strings.Fields(line) {
			if n, err := strconv.ParseUint(f, 16, 64); err == nil && i < len(names) {
				into[names[i]] += n
			}
		}
	}
}

// parseSNMP reads pairs of lines, the first with names (net/ipv4/proc.c).
func parseSNMP(text string, into map[string]uint64) {
	lines := strings.Split(text, "\n")
	for i := 0; i+1 < len(lines); i++ {
		kind, names, ok1 := strings.Cut(lines[i], ":")
		kind2, values, ok2 := strings.Cut(lines[i+1], ":")
		if !ok1 || !ok2 || kind != kind2 {
			continue
		}
		numbers := strings.Fields(values)
		for j, name := range strings.Fields(names) {
			if j >= len(numbers) {
				break
			}
			if n, err := strconv.ParseUint(numbers[j], 10, 64); err == nil {
				into[kind+" "+name] = n
			}
		}
		i++
	}
}

// parseSNMP6 reads a name and a number a line (net/ipv6/proc.c).
func parseSNMP6(text string, into map[string]uint64) {
	for line := range strings.SplitSeq(text, "\n") {
		if f := strings.Fields(line); len(f) == 2 {
			if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				into[f[0]] = n
			}
		}
	}
}
