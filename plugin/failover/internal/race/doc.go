// Package race carries a client query from its first attempt to its answer. It
// stands between package pool, which decides, and package wire, which sends: it
// holds the lock around the one and the sockets of the other, keeps the timer,
// and tells its owner what happened.
//
// A [Group] is the upstreams of one failover directive. [Group.Exchange] is
// called by many goroutines at once, each of which drives its own query; the
// only other goroutines are one that ticks the pool, one per probe, and one per
// query that goes on listening to a loser (some percent of the queries, for 300
// ms). All end with [Group.Close].
package race
