"""A network that exists for one run: two bridges in a namespace of its own, and hosts that are namespaces beside it.

The whole run lives in namespaces of mounts, network and processes (``isolate``). They end with its first process,
however it ends, and with them each process, link and mount that was made in them: nothing can be left behind, nothing
outside is touched, and two runs at once do not meet.

The run itself, and the database, are at the bridges; each host has a link to one or both of them:

    base    10.77.0.0/24    members and the database
    front   10.78.0.0/24    members, and clients and workers

A link is cut at its bridge, without a word to either end: packets vanish in both directions.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

BASE, FRONT = "base", "front"
_NETS = {BASE: "10.77.0", FRONT: "10.78.0"}
HUB = 254  # the last byte of the run's own addresses
_ISOLATED = "GEARTRAIN_CHAOS_ISOLATED"


def isolate() -> None:
    """Go on within new namespaces; returns in there. Raises SystemExit where that can't be."""
    if os.environ.pop(_ISOLATED, ""):
        _run("mount", "--make-rprivate", "/")
        _run("mount", "-t", "tmpfs", "tmpfs", "/run")  # the names of the namespaces are mounts there
        _run("ip", "link", "set", "lo", "up")
        return
    if os.geteuid() != 0:
        raise SystemExit("namespaces, and links between them, are made by root")
    for program, package in (("unshare", "util-linux"), ("ip", "iproute2"), ("bridge", "iproute2")):
        if shutil.which(program) is None:
            raise SystemExit(f"needs {program}: install the package {package}")
    os.environ[_ISOLATED] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one inside ends, and prints its table
    namespaces = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    done = subprocess.run(["unshare", *namespaces, sys.executable, *sys.argv], check=False)
    raise SystemExit(done.returncode)


def address(net: str, number: int) -> str:
    """The address of the host of this number."""
    return f"{_NETS[net]}.{number}"


class Network:
    """The bridges, and the hosts that were linked to them."""

    def __init__(self) -> None:
        for net in _NETS:
            _run("ip", "link", "add", net, "type", "bridge")
            _run("ip", "address", "add", f"{address(net, HUB)}/24", "dev", net)
            _run("ip", "link", "set", net, "up")

    def add(self, host: str, number: int, *nets: str) -> None:
        """Another host, linked to these nets."""
        _run("ip", "netns", "add", host)
        inside = ("ip", "-netns", host)
        _run(*inside, "link", "set", "lo", "up")
        for net in nets:
            port = f"{host}-{net}"
            _run("ip", "link", "add", port, "type", "veth", "peer", "name", net, "netns", host)
            _run("ip", "link", "set", port, "master", net, "up")
            _run(*inside, "address", "add", f"{address(net, number)}/24", "dev", net)
            _run(*inside, "link", "set", net, "up")

    def cut(self, host: str, net: str) -> None:
        """Let nothing pass between a host and a net any more."""
        _run("bridge", "link", "set", "dev", f"{host}-{net}", "state", "0")

    def mend(self, host: str, net: str) -> None:
        """Let everything pass again."""
        _run("bridge", "link", "set", "dev", f"{host}-{net}", "state", "3")


def start(host: str, command: list[str], log: IO[bytes], folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start a program on a host."""
    return subprocess.Popen(
        ["ip", "netns", "exec", host, *command],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env={**os.environ, **environment},
        start_new_session=True,
    )  # fmt: skip


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
