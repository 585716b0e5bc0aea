# Each target is one line; what a step does stands in the script it calls. make help lists them.
GO ?= go

build: ## the binary, ./sluice, which needs no C library
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w $(shell deployments/local/buildinfo.sh)" -o sluice ./cmd/sluice
test: ## everything: unit and embedded tests, then the suites on real Kafka 4.1, Kafka 2.8 and Redis
	deployments/local/test.sh
check: ## gofmt, go vet, golangci-lint, govulncheck
	deployments/local/check.sh
lint: ## golangci-lint alone
	deployments/local/check.sh lint
race: ## the embedded tests under the race detector
	$(GO) test -race ./...
demo: ## 1,000 records through webhook, SSE and pull; checks itself
	$(GO) run ./e2e/demo
bench: ## each path beside its limit; docs/benchmarks.md has the flags
	$(GO) run ./bench $(BENCH)
dev: ## the gateway with Kafka and Redis inside
	$(GO) run ./cmd/sluice dev --demo
help:
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.PHONY: build test check lint race demo bench dev help
.DEFAULT_GOAL := build
