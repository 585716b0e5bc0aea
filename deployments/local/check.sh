#!/usr/bin/env bash
# What needs no server: format, vet, lint, known vulnerabilities.  check.sh [lint]
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$PWD/.cache/bin; mkdir -p "$bin"
tool() { # name, package, version: built once; the version is part of the name, so that a new one is built anew
  [ -x "$bin/$1-$3" ] || { GOBIN=$bin go install "$2@$3" && mv "$bin/$1" "$bin/$1-$3"; }
}
lint() { tool golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint v2.15.0; "$bin/golangci-lint-v2.15.0" run ./...; }
case ${1:-all} in lint) lint; exit ;; esac
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
[ -z "$unformatted" ] || { echo "gofmt would change:"; echo "$unformatted"; exit 1; }
go mod verify
go vet ./...
lint
tool govulncheck golang.org/x/vuln/cmd/govulncheck v1.9.0
if out=$("$bin/govulncheck-v1.9.0" ./... 2>&1); then
  echo "govulncheck: no known vulnerability"
elif grep -qiE 'dial tcp|no such host|fetching vulnerabilities|connection refused|Forbidden|i/o timeout|proxyconnect' <<<"$out"; then
  echo "govulncheck did not run: its database cannot be reached from here"
else
  echo "$out"; exit 1
fi
