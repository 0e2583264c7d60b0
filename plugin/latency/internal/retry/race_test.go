//go:build race

package retry

// lossFreeSeeds is how often each kind of traffic is played. Once where it is ten
// times slower: it has no concurrency to check.
const lossFreeSeeds = uint64(1)
