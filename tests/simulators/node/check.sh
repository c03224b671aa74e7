#!/bin/sh
# Runs the silos' own clients (npm node-gitter and @mattermost/client, PyPI mattermostdriver) against their simulators.
# Needs Node 18 or newer, npm, Python 3.10 or newer with venv, and cargo.
set -eu
cd "$(dirname "$0")"

# Without peer dependencies: types are not used here, and the TypeScript compiler would be most of the download.
npm ci --omit-lockfile-registry-resolved --legacy-peer-deps --no-audit --no-fund --silent

target="${CARGO_TARGET_DIR:-$PWD/../../../target}"
driver="$target/mattermostdriver"
if [ ! -x "$driver/bin/python" ]; then
    python3 -m venv "$driver"
fi
"$driver/bin/python" -m pip install --quiet --disable-pip-version-check mattermostdriver==7.3.2

if [ -z "${TESTBED:-}" ]; then
    cargo build --quiet --workspace --bins
    TESTBED="$target/debug/testbed"
fi

output=
sim=
finish() {
    if [ -n "$sim" ]; then kill "$sim" 2>/dev/null || true; fi
    if [ -n "$output" ]; then rm -f "$output"; fi
}
trap finish EXIT
trap 'exit 1' INT TERM

# Starts a simulator and waits until it has printed its address.
start() {
    finish
    output=$(mktemp)
    "$@" >"$output" &
    sim=$!
    tries=0
    until [ -s "$output" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ] || ! kill -0 "$sim" 2>/dev/null; then
            echo "The simulator did not start" >&2
            exit 1
        fi
        sleep 0.1
    done
}

start "$TESTBED" gitter-sim --user bridge --user alice --room org/repo --rate-limit 1000
node --no-deprecation check.cjs "$output"
start "$TESTBED" mattermost-sim
node --no-deprecation mattermost.cjs "$output"
start "$TESTBED" mattermost-sim
"$driver/bin/python" ../python/mattermost_check.py "$output"
