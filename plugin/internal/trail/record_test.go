package trail

import (
	"context"
	"testing"
)

type userKey struct{}

func TestRecordInContext(t *testing.T) {
	ctx := context.WithValue(context.Background(), userKey{}, "u")
	if From(ctx) != nil {
		t.Fatal("a record out of nowhere")
	}
	r := Start(ctx)
	below := context.WithValue(r, struct{ k int }{1}, 1)
	if From(below) != r || Start(below) != r {
		t.Error("the record behind is not the one in front")
	}
	if below.Value(userKey{}) != "u" {
		t.Error("a value of the context before was lost")
	}
	off := Detach(below)
	if From(off) != nil {
		t.Error("the record can still be reached")
	}
	if off.Value(userKey{}) != "u" {
		t.Error("a value was detached that is not ours")
	}
	if Start(off) == r {
		t.Error("detached work got the client's record")
	}
}

func TestAttempts(t *testing.T) {
	r := Start(context.Background())
	for range maxAttempts + 3 {
		r.AddAttempt(Attempt{Upstream: "192.0.2.1:53"})
	}
	got := r.Finish()
	if len(got) != maxAttempts {
		t.Errorf("%d attempts kept, want %d", len(got), maxAttempts)
	}
	late := Start(context.Background())
	late.Finish()
	late.AddAttempt(Attempt{})
	if got := late.Finish(); len(got) != 0 {
		t.Errorf("an attempt was added to a finished record: %v", got)
	}
}

func TestUpstream(t *testing.T) {
	var none *Record
	none.NoteUpstream("192.0.2.1:53") // nobody wants to know

	for name, tc := range map[string]struct {
		note  func(r *Record)
		addr  string
		asked bool
	}{
		"nobody asked":      {func(*Record) {}, "", false},
		"asked":             {func(r *Record) { r.NoteUpstream("192.0.2.1:53") }, "192.0.2.1:53", true},
		"the last one":      {func(r *Record) { r.NoteUpstream("192.0.2.1:53"); r.NoteUpstream("192.0.2.2:53") }, "192.0.2.2:53", true},
		"it is not known":   {func(r *Record) { r.NoteUpstream("192.0.2.1:53"); r.NoteUpstream("") }, "192.0.2.1:53", true},
		"only an attempt":   {func(r *Record) { r.AddAttempt(Attempt{Upstream: "192.0.2.1:53"}) }, "", true},
		"after the end":     {func(r *Record) { r.Finish(); r.NoteUpstream("192.0.2.1:53") }, "", false},
		"asked, then ended": {func(r *Record) { r.NoteUpstream("192.0.2.1:53"); r.Finish() }, "192.0.2.1:53", true},
	} {
		r := Start(context.Background())
		tc.note(r)
		if addr, asked := r.Upstream(); addr != tc.addr || asked != tc.asked {
			t.Errorf("%s: got %q, %v, want %q, %v", name, addr, asked, tc.addr, tc.asked)
		}
	}
}
