#!/usr/bin/env bash
# pymemcache's HashClient with ignore_exc=False, its default: a node that is down raises once, then reads as empty.
#
# `ignore_exc` is described as what makes an error look like a miss. Without it, the first command to a node that refuses
# connections raises, as expected. For the next `retry_timeout` second, commands to the node are not tried: get returns
# None, get_many {}, set and add False, and nothing is raised. A caller can't tell an outage from a missing key, and an
# `add` that was never sent from one that lost against another client, which is how locks are taken.
#
# Ends with 0 while this is so, with 1 when it has changed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pymemcache==4.0.0

"$folder/venv/bin/python" - <<'PYTHON'
import socket
import sys
from importlib.metadata import version

from pymemcache.client.hash import HashClient

with socket.socket() as probe:  # a port where nobody listens
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]

client = HashClient([("127.0.0.1", port)])  # ignore_exc=False
calls = [("get", "key"), ("get", "key"), ("get_many", ["key"]), ("set", "key", "value"), ("add", "key", "value")]
seen = []
for name, *arguments in calls:
    try:
        seen.append(f"returns {getattr(client, name)(*arguments)!r}")
    except Exception as error:
        seen.append(f"raises {type(error).__name__}")

print(f"Python {sys.version.split()[0]}, pymemcache {version('pymemcache')}, no memcached at 127.0.0.1:{port}")
for (name, *_), what in zip(calls, seen):
    print(f"  {name:9} {what}")

expected = ["raises ConnectionRefusedError", "returns None", "returns {}", "returns False", "returns False"]
if seen != expected:
    sys.exit(f"changed: {expected} was seen before")
print("as described: after the first error, a node that is down looks like one that has nothing")
PYTHON
