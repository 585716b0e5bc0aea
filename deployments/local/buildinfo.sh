#!/usr/bin/env bash
# Prints the linker flags that tell the binary what it was built from. Outside a git checkout it prints what it knows.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
version=$(git describe --tags --always 2>/dev/null || echo unknown)
repository=$(git config --get remote.origin.url 2>/dev/null || echo https://github.com/sluicegate/sluice)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
printf '%s' "-X main.releaseVersion=$version -X main.repository=${repository// /} -X main.revision=$revision -X main.dateTime=$(date -u +%Y%m%d%H%M%S)"
