// Package pool decides, for one directive, which upstream a client query goes to, when a second one is asked, whose
// fault it was, and who is in service. It decides and does nothing: no goroutine, no clock, no socket, no randomness of
// its own. The caller (package race) holds one lock around it, drives it with events and carries out what it returns.
//
// # A query
//
// Begin names the upstream to ask and when to call Timer. From then on the caller reports every reply and every error
// with Result, calls Timer when its time has come, and does what each Step says: send attempts, stop listening for
// some, listen a little longer for others, set the one timer anew, and at the end deliver a reply or give SERVFAIL.
// Every query ends with exactly one Step that has Done, or with Abandon.
//
//	step := p.Begin(&q, key, now)
//	for !step.Done {
//		send(step.Ask[:step.Asks])
//		select {
//		case r := <-replies: step = p.Result(&q, r.attempt, r.outcome, now())
//		case <-timer(step.Timer): step = p.Timer(&q, now())
//		}
//		stop(step.Cancel)
//	}
//	keepListening(step.Watch, pool.Grace) // reports with Result, whatever q is used for by then
//
// After each call the caller collects Events if HasEvents. On AllOut it calls Timer for every waiting query, each of
// which then ends. An owner calls Tick when NextTick says, sends the probes it orders, and reports with ProbeResult.
//
// # What is decided, in this order
//
//  1. Pick. Two upstreams in service at random, the cheaper one: (smoothed RTT + share of losses x 500 ms) x (in flight
//     + 1), and never less than the time clients have been waiting for it in vain. Upstreams that have never replied are
//     used only while none has, and then two are asked.
//  2. Hedge. Silence past the 97th percentile of query times (10 to 200 ms) sends a second attempt, for a token; a third
//     needs a half-full bank. Errors move on at once for nothing, bad rcodes for a token. A bad rcode is kept and given
//     to the client if nobody does better.
//  3. Budget. Client queries earn tokens, a share of which can be saved. Without a token, a query whose upstreams were
//     silent to everyone since it left, and for longer than usual, moves on after 500 ms to one that has answered lately.
//  4. Blame. An attempt is lost only when another upstream, asked no earlier, answered the same question well and this
//     one gave a bad rcode or an error or was still silent 300 ms later (Grace). One question is lost once. In doubt
//     a replay of a real question is sent on nobody's behalf, and judged by the same rule.
//  5. Eject. Three losses in a row and nothing good since for 300 ms; or a fifth of at least twenty outcomes in 10 s.
//     Never the last one. Only absolute silence, of queries and of probes and for two to three seconds, may take the
//     last.
//  6. Prove. Out for one to four seconds, then 20 replays of real questions must all be answered. No client query is used
//     to find out.
//  7. Start. Every upstream is probed at once; one that stays silent while others reply is out before a second has
//     passed, and named before two have.
//  8. All out. Queries fail at once. Every upstream is probed each 200 ms, and the first reply puts it into service.
//
// # Invariants
//
// Attempts of a query: at most 3 that may reach an upstream, MaxAttempts in all. Tokens are never negative: extra
// attempts are at most the budget's share of client queries, plus the bank, plus failovers from upstreams that are
// silent to everyone or gave an error. Comparison never takes the last upstream out. What all upstreams do alike (slow
// names, broken names, a dead uplink, a stalled process) blames none. A proof is at most ten replays a second; a dead
// upstream gets about one in four seconds. An upstream is back within 10 s of healing.
//
// # Limits
//
// All upstreams must be equivalent: where they answer differently by design, racing them is wrong. A query whose three
// attempts are all lost in the network waits for the deadline. With one upstream the extra attempts go to the same one
// on another socket, which helps against loss only. Below some query a minute, blame has little to go by.
package pool
