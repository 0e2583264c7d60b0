# `make help` lists the targets. Everything is built with the flags of the
# official CoreDNS release; the Go build cache is shared by all targets.

VERSION  ?= 0.1.0
COMMIT   ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
COREFILE ?= corefile-examples/demo.Corefile

# One set of flags for build, vet, lint and tests: CoreDNS is large, and is
# compiled once for each set.
TAGS    := grpcnotrace
LDFLAGS := -s -w -X main.version=$(VERSION) \
	-X github.com/coredns/coredns/coremain.GitCommit=resolute-$(VERSION)-$(COMMIT)
GO      := CGO_ENABLED=0 go

# The race detector needs a C compiler.
RACE := $(shell command -v $$(go env CC) >/dev/null 2>&1 && echo -race)

.DEFAULT_GOAL := build
.PHONY: build server tailprobe run test peers soak generate fmt lint bench clean help

build: server tailprobe ## build ./coredns and ./tailprobe

server:
	$(GO) build -tags=$(TAGS) -ldflags="$(LDFLAGS)" -o coredns ./build

# A module of its own: its libraries would lift the versions that CoreDNS pins.
tailprobe:
	$(GO) build -C cmd/tailprobe -trimpath -ldflags="-s -w -X main.version=$(VERSION)" -o $(CURDIR)/tailprobe .

run: server ## start ./coredns with the demo, or with COREFILE=...
	@sed -n 's/^# try: \{0,1\}//p' $(COREFILE)
	@echo
	@exec ./coredns -conf $(COREFILE)

test: server ## run all tests; as root also those with network namespaces
ifeq ($(RACE),)
	@echo "No C compiler: the tests run without the race detector."
endif
	$(if $(RACE),CGO_ENABLED=1,CGO_ENABLED=0) go test -tags=$(TAGS) $(RACE) ./plugin/...
	RESOLUTE_BINARY=$(CURDIR)/coredns $(GO) test -tags=$(TAGS) ./build/... ./test ./test/harness
	cd cmd/tailprobe && $(GO) test ./...
	# These have schedules to keep, and the machine for themselves.
	RESOLUTE_BINARY=$(CURDIR)/coredns $(GO) test -tags=$(TAGS) -p 1 ./test/peers/...

peers: server ## print the table of failover beside stock forward, at full length
	RESOLUTE_BINARY=$(CURDIR)/coredns PEERS_LONG=1 $(GO) test -tags=$(TAGS) -count=1 -timeout 60m -v -run TestRows ./test/peers

SOAK ?= 10m
soak: ## random faults for SOAK=10m, with the race detector
	CGO_ENABLED=1 go build -race -tags=$(TAGS) -o bin/coredns-race ./build
	RESOLUTE_BINARY=$(CURDIR)/bin/coredns-race PEERS_SOAK=$(SOAK) $(GO) test -tags=$(TAGS) -count=1 -timeout 60m -v -run TestSoak ./test/peers

generate: ## make the Go files that depend on plugin.cfg
	$(GO) generate ./build

fmt: ## format the Go files
	gofmt -l -w build cmd plugin test

lint: bin/staticcheck ## gofmt, go vet and staticcheck
	@test -z "$$(gofmt -l build cmd plugin test)" || { gofmt -l build cmd plugin test; echo "not formatted: run make fmt"; exit 1; }
	$(GO) vet -tags=$(TAGS) ./...
	CGO_ENABLED=0 bin/staticcheck -tags=$(TAGS) ./...
	cd cmd/tailprobe && $(GO) vet ./... && CGO_ENABLED=0 ../../bin/staticcheck ./...

bin/staticcheck: tools/go.mod tools/go.sum
	go build -C tools -o ../$@ honnef.co/go/tools/cmd/staticcheck

bench: server ## run the benchmarks; those against stock CoreDNS print ratios
	$(GO) test -tags=$(TAGS) -run '^$$' -bench . ./plugin/...
	RESOLUTE_BINARY=$(CURDIR)/coredns $(GO) test -tags=$(TAGS) -run '^$$' -bench . -benchtime 1x ./test

clean: ## remove what was built
	rm -rf coredns tailprobe bin

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 12
