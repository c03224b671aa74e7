#!/bin/sh
# Runs Gitter's own client (npm node-gitter) against the Gitter simulator. Needs Node 18 or newer, npm and cargo.
set -eu
cd "$(dirname "$0")"

npm ci --omit-lockfile-registry-resolved --no-audit --no-fund --silent

if [ -z "${GITTER_SIM:-}" ]; then
    cargo build --quiet -p footbridge-testbed --bin gitter-sim
    GITTER_SIM="${CARGO_TARGET_DIR:-../../../target}/debug/gitter-sim"
fi

said=$(mktemp)
sim=
finish() {
    if [ -n "$sim" ]; then kill "$sim" 2>/dev/null || true; fi
    rm -f "$said"
}
trap finish EXIT
trap 'exit 1' INT TERM

"$GITTER_SIM" --user bridge --user alice --room org/repo --rate-limit 1000 >"$said" &
sim=$!
tries=0
until [ -s "$said" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$sim" 2>/dev/null; then
        echo "The simulator did not start" >&2
        exit 1
    fi
    sleep 0.1
done

node --no-deprecation check.cjs "$said"
