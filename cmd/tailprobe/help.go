package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v3"
)

// shortHelp fits a screen of 24 lines with 80 columns; a test checks it.
const shortHelp = `tailprobe finds the slow lookups that averages hide, from inside a pod.

  tailprobe NAME                          getaddrinfo, 200 workers, 30 s
  tailprobe doctor                        what is wrong with DNS in this pod?
  tailprobe NAME -server IP -server IP    name servers side by side

  -c 200 -d 30s -n N     workers, time, at most N lookups   (of each server)
  -rate N                N lookups a second (open loop); default: closed loop
  -limit 5s              show slower lookups, and exit with 1 if there are any
  -fail-over 1s=0.1%     exit with 1 if more lookups take longer (repeatable)
  -fail-errors 0.1%      exit with 1 if more lookups fail
  -server IP[:PORT],IP   ask these in place of resolv.conf's (repeatable)
  -libc glibc|musl       whose getaddrinfo to be     -family any|4|6
  -options 'timeout:1 use-vc'   options of resolv.conf, added to the file's
  -search 'x.test y.test'       in place of the file's search list
  -resolv-conf FILE      in place of /etc/resolv.conf
  -f FILE                names, one a line           -random   defeat caches
  -json                  report as JSON              -svg FILE   draw it

Exit code: 0 passed, 1 a threshold was crossed or a problem found, 2 error.
All flags: tailprobe flags, tailprobe doctor -h
`

// flagList explains flags, a line each, with the single dash of this program;
// two dashes work too.
func flagList(flags []cli.Flag) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, f := range flags {
		name, text, _ := strings.Cut(f.String(), "\t")
		name, _, _ = strings.Cut(name, " [")
		fmt.Fprintf(w, "  -%s\t%s\n", strings.TrimLeft(strings.TrimSpace(name), "-"), strings.TrimSpace(text))
	}
	w.Flush() // into memory
	return b.String()
}
