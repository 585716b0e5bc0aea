#!/usr/bin/env bash
# make test: the same suites over every back end. First everything over the embedded Kafka and Redis under the race
# detector, then the rooms that speak to Kafka or Redis over Apache Kafka 4.1 (KRaft), Apache Kafka 2.8 (ZooKeeper, what
# MSK runs) and redis-server. It starts and stops what it needs, on ports of its own, and ends with a table.
# A few tests that failed get a second try, and the table says so. What cannot be had here is said loudly as NOT RUN, and with CI=true that fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
local=$PWD/deployments/local
out=$PWD/.cache/test; rm -rf "$out"; mkdir -p "$out"
export KL41=${KL41:-/var/tmp/kafka-local} KL28=${KL28:-/var/tmp/kafka28-local}
shift41=2000 shift28=3000 # clients on 11092 and 15092: beside whatever runs on the usual ports
suites="./e2e ./e2e/conformance ./kafka ./httpapi ./partition/... ./dispatcher ./stream ./consumers ./subscriptions ./migrations ./gateway ./sandbox/backend" # the long ones first: two at a time
missing=()

run() { # back end, then go test's arguments
  local name=$1; shift
  echo "== $name"
  go test -json "$@" >"$out/$name.json" 2>"$out/$name.err" || true # the summary judges
  # Faults on a shared machine: a few that failed get one more try, alone, and the table says so.
  local race=; [ "$name" = kfake ] && race=-race
  go run ./deployments/local/summary -failed "$out/$name.json" >"$out/$name.failed"
  while read -r pkg tests; do
    go run ./deployments/local/summary -line "$out/$name.json"; echo "== $name again: $pkg $tests"
    go test -json -count=1 $race -timeout 10m -run "^($tests)\$" "$pkg" >>"$out/$name.json" 2>>"$out/$name.err" </dev/null || true
  done <"$out/$name.failed"
  go run ./deployments/local/summary -line "$out/$name.json"
}

[ -n "${SKIP_KFAKE:-}" ] || run kfake -race -p 2 -parallel 3 -timeout 20m ./...

redis=real
command -v redis-server >/dev/null || { missing+=("real Redis: redis-server is not installed (Debian: apt-get install redis-server)"); redis=mini; }
if ! command -v java >/dev/null || ! command -v mvn >/dev/null; then
  missing+=("Kafka 4.1 and 2.8: Java 17 and Maven are not both installed")
else
  [ -d "$KL41/libs" ] || KL=$KL41 "$local/kafka-local.sh" libs
  [ -d "$KL28/libs" ] || KL=$KL28 "$local/msk28/kafka28-local.sh" libs
  data=$(mktemp -d /var/tmp/sluice-test-XXXXXX); mkdir "$data/41" "$data/28"
  ln -s "$KL41/libs" "$data/41/libs"; ln -s "$KL28/libs" "$data/28/libs"
  down() {
    KL=$data/41 SHIFT=$shift41 "$local/kafka-local.sh" down || true
    KL=$data/28 SHIFT=$shift28 "$local/msk28/kafka28-local.sh" down || true
    rm -rf "$data"
  }
  trap down EXIT
  export TEST_REDIS=$redis TEST_KAFKA_LIBS=$KL41/libs TEST_KAFKA28_LIBS=$KL28/libs
  KL=$data/41 SHIFT=$shift41 "$local/kafka-local.sh" up 1
  TEST_KAFKA=kafka41 TEST_KAFKA_BROKERS=127.0.0.1:$((9092 + shift41)) \
    run kafka41 -p 2 -count=1 -parallel 3 -timeout 20m $suites
  KL=$data/41 SHIFT=$shift41 "$local/kafka-local.sh" down
  KL=$data/28 SHIFT=$shift28 "$local/msk28/kafka28-local.sh" up
  TEST_KAFKA=kafka28 TEST_KAFKA_BROKERS=127.0.0.1:$((12092 + shift28)) \
    run kafka28 -p 2 -count=1 -parallel 3 -timeout 20m $suites
fi
for m in ${missing[@]+"${missing[@]}"}; do echo "NOT RUN: $m" | tee -a "$out/missing"; done
go run ./deployments/local/summary "$out"
if [ "${CI:-}" = true ] && [ -s "$out/missing" ]; then echo "CI must not skip a back end"; exit 1; fi
