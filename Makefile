# The two commands to know are `make run` and `make test`; each does its own
# set-up. Generated code is committed, so only `make generate` needs clang.

GO      ?= go
BIN     := bin/waggle
CLANG   := clang-14
TIMEOUT ?= 20m

# CACHE holds what is built of other projects to compare with.
CACHE   ?= $(HOME)/.cache/waggle
COREDNS := $(CACHE)/coredns-v1.14.7/coredns

.PHONY: run test test-vm build generate lint bench bench-scale soak check clean packages conformance-dns bench-dns bench-vm bench-connect bench-program fuzz

# run starts the embedded cluster with examples/ and the daemon on it.
run: build
	@scripts/deps memcached dnsutils curl netcat-openbsd
	@$(BIN) dev examples/

build:
	@mkdir -p bin
	$(GO) build -o $(BIN) ./cmd/waggle

# packages builds the .deb and the .rpm in bin/.
packages:
	@scripts/packages bin

# test runs everything; as root the privileged tests too.
test:
	@scripts/deps memcached iproute2 iputils-ping nftables bpftool zookeeper qemu-system-x86 busybox-static
	@scripts/deps nsd knot knot-dnsutils dnsutils unbound dnsmasq chromium
	$(GO) test -count=1 -timeout $(TIMEOUT) ./...

# test-vm runs what is to run on other kernels, which test does too.
test-vm:
	@scripts/deps qemu-system-x86 busybox-static
	$(GO) test -count=1 -timeout $(TIMEOUT) -v ./internal/vmtest

# generate rebuilds the eBPF objects and everything else made from source.
generate:
	@scripts/deps $(CLANG) llvm-14 libbpf-dev linux-libc-dev
	$(GO) generate ./...

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) vet -tags vmtest ./ebpf ./lb/ipvs ./cmd/waggle ./bench
	$(GO) tool staticcheck ./...

# check is what a change must pass before it is pushed.
check: lint generate
	git diff --exit-code -- '*_bpfel.go' '*_bpfel.o' docs/balancers.md
	$(GO) test -count=1 -race -timeout $(TIMEOUT) ./...

# conformance-dns runs the checks of internal/dnscheck against waggle, NSD, Knot
# and CoreDNS, and says who fails which. `make test` does the first three.
conformance-dns: $(COREDNS)
	@scripts/deps nsd knot knot-dnsutils dnsutils unbound dnsmasq chromium
	COREDNS=$(COREDNS) $(GO) test -count=1 -timeout $(TIMEOUT) -v -run '^TestConformance|^TestNamesThatAreNotOurs' ./dns

$(COREDNS):
	GOBIN=$(@D) $(GO) install github.com/coredns/coredns@$(patsubst coredns-%,%,$(notdir $(@D)))

bench:
	@scripts/deps memcached iproute2
	$(GO) test -run "^$$" -bench . -skip Scale -benchtime 1000x -timeout $(TIMEOUT) ./bench

# soak runs the fault test for LENGTH with strict limits; SEED repeats a run.
LENGTH  ?= 10m
SEED    ?=
soak:
	@scripts/deps zookeeper iproute2
	WAGGLE_SOAK=$(LENGTH) WAGGLE_SEED=$(SEED) WAGGLE_NO_SKIP=1 $(GO) test -count=1 -v -run TestFaults -timeout 0 ./cmd/waggle

# bench-program measures what a change of the Plan, and a connect, cost the
# balancer.
bench-program:
	@scripts/deps iproute2
	$(GO) test -count=1 -run "^$$" -bench "^BenchmarkProgram$$" -benchtime 100x -timeout $(TIMEOUT) ./ebpf

# bench-dns compares the program with other DNS servers; `make bench-dns
# BENCH_ROUNDS=1` is a quick look of three minutes.
BENCH_ROUNDS ?= 5
bench-dns: $(COREDNS)
	@scripts/deps dnsperf nsd knot unbound dnsmasq iproute2
	$(GO) build ./... # what has to be downloaded
	COREDNS=$(COREDNS) BENCH_ROUNDS=$(BENCH_ROUNDS) scripts/alone $(GO) test -count=1 -timeout $(TIMEOUT) -v -run '^TestDNS.*AgainstPeers$$' ./bench

# bench-connect compares connecting through VIPs with connecting directly, and
# with nftables, iptables and HAProxy: two minutes at 300 rounds. It is kept to one
# CPU: where clients and servers find each other is half of the noise otherwise.
CONNECT_ROUNDS ?= 300
bench-connect:
	@scripts/deps iproute2 nftables iptables haproxy
	BENCH_ROUNDS=$(CONNECT_ROUNDS) $(GO) test -exec "taskset --cpu-list $$(($$(nproc) - 1))" -count=1 -timeout $(TIMEOUT) -v \
		-run TestConnectAgainstPeers ./bench

# bench-vm compares eBPF, IPVS and direct connections in one boot of a machine
# with Debian's kernel: two minutes at 60 rounds.
VM_ROUNDS ?= 60
bench-vm:
	@scripts/deps qemu-system-x86 busybox-static
	BENCH_ROUNDS=$(VM_ROUNDS) $(GO) test -count=1 -timeout $(TIMEOUT) -v -run TestBalancersInOneMachine ./bench

# fuzz runs each fuzz target in turn; what it finds is kept in testdata/fuzz.
FUZZTIME ?= 1m
fuzz:
	@scripts/fuzz $(FUZZTIME)

# bench-scale compares clusters of 1 000, 10 000 and 100 000 tasks.
bench-scale:
	@scripts/deps iproute2
	$(GO) test -run "^$$" -bench ScaleStages -benchtime 1000x -timeout $(TIMEOUT) ./bench
	$(GO) test -run "^$$" -bench ScaleProcess -benchtime 3x -timeout $(TIMEOUT) ./bench

clean:
	rm -rf bin
	-$(GO) clean -testcache
