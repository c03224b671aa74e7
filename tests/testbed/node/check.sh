#!/bin/sh
# Runs the silos' own clients (npm node-gitter and @mattermost/client, PyPI mattermostdriver) against their simulators.
# Needs Node 18 or newer, npm, Python 3.10 or newer with venv, and cargo.
set -eu
cd "$(dirname "$0")"

# Types are of no use here, and a compiler for them would be most of what is fetched.
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

said=
sim=
finish() {
    if [ -n "$sim" ]; then kill "$sim" 2>/dev/null || true; fi
    if [ -n "$said" ]; then rm -f "$said"; fi
}
trap finish EXIT
trap 'exit 1' INT TERM

# Starts a simulator and waits until it has said where it is.
start() {
    finish
    said=$(mktemp)
    "$@" >"$said" &
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
}

start "$TESTBED" gitter-sim --user bridge --user alice --room org/repo --rate-limit 1000
node --no-deprecation check.cjs "$said"
start "$TESTBED" mattermost-sim
node --no-deprecation mattermost.cjs "$said"
start "$TESTBED" mattermost-sim
"$driver/bin/python" ../python/mattermost_check.py "$said"
