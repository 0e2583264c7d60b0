package nodelocal

import "fmt"

// The steps at which something can fail, a label of the error counter.
const (
	stepLease     = "lease"
	stepInterface = "interface"
	stepAddress   = "address"
	stepRules     = "rules"
	stepTeardown  = "teardown"
)

var steps = []string{stepLease, stepInterface, stepAddress, stepRules, stepTeardown}

// failure is an error at a step.
type failure struct {
	step string
	err  error
	// mistake is set for what only a person can put right, in the Corefile or on
	// the host. The server doesn't start on it. Everything else is tried again, and
	// doesn't keep the server from answering.
	mistake bool
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func failed(step, format string, args ...any) *failure {
	return &failure{step: step, err: fmt.Errorf(format, args...)}
}

func mistaken(step, format string, args ...any) *failure {
	f := failed(step, format, args...)
	f.mistake = true
	return f
}

// tell counts a failure and says what it is.
func tell(f *failure) {
	setupErrors.WithLabelValues(f.step).Inc()
	log.Warning(f)
}
