//go:build !race

package retry

// lossFreeSeeds is how often each kind of traffic is played.
const lossFreeSeeds = uint64(3)
