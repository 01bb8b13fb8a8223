"""What a browser or curl can be made to send to a Gearman port on the loopback achieves nothing.

A real browser opens a page of another port of this machine, as it would open any page of the web; the page tries all
that a page may try without being asked: requests in text, forms, pictures, sockets of its own.
"""

from __future__ import annotations

import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from geartrain.wire.packets import SUBMIT_JOB_BG, pack_request
from servers import RunningServer, needs, running_geartrain, wait_until

PAGE = """<!doctype html><meta charset="utf-8"><title>a page</title>
<form id="form" method="post" enctype="text/plain" target="frame"><textarea name="x"></textarea></form>
<iframe name="frame"></iframe>
<script>
const port = %d, orders = "\\ndrop function victim\\ncreate function made\\nmaxqueue victim 1\\n";
const binary = new Uint8Array([%s]);
const url = `http://127.0.0.1:${port}/`;
const quiet = promise => promise.catch(() => {});
async function tryAll() {
  for (const body of [orders, new Blob([orders]), new Blob([binary])]) {
    await quiet(fetch(url, {method: "POST", mode: "no-cors", body}));
  }
  await quiet(fetch(url + "%%0Adrop%%20function%%20victim%%0A", {mode: "no-cors"}));
  navigator.sendBeacon(url, orders);
  const form = document.getElementById("form");
  form.action = url;
  form.elements.x.value = orders;
  form.submit();
  await new Promise(done => { const picture = new Image(); picture.onerror = picture.onload = done; picture.src = url; });
  await new Promise(done => { const socket = new WebSocket(`ws://127.0.0.1:${port}/`); socket.onerror = socket.onclose = done; });
  await new Promise(done => { const events = new EventSource(url); events.onerror = () => { events.close(); done(); }; });
  const relay = {urls: `turn:127.0.0.1:${port}?transport=tcp`, username: orders, credential: orders};
  const call = new RTCPeerConnection({iceServers: [relay], iceTransportPolicy: "relay"});
  call.createDataChannel("x");
  await call.setLocalDescription(await call.createOffer());
  await new Promise(done => { call.onicegatheringstatechange = () => call.iceGatheringState == "complete" && done(); });
  await quiet(fetch(`https://127.0.0.1:${port}/`, {method: "POST", mode: "no-cors", body: orders}));
  await fetch("/done", {method: "POST"});
}
tryAll();
</script>"""  # noqa: E501


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_geartrain() as server:
        assert server.ask("create function victim") == ["OK"]
        yield server


def is_untouched(server: RunningServer) -> bool:
    return server.ask("status") == ["victim\t0\t0\t0"]


def refusals(server: RunningServer) -> int:
    """How many connections were closed as foreign: the last line tells, however many were summed up in one."""
    lines = [line for line in server.log.read_text().splitlines() if " foreign_protocol " in line]
    return int(lines[-1].rpartition("so_far=")[2].split()[0]) if lines else 0


def test_a_page_in_a_browser_achieves_nothing(server: RunningServer, tmp_path: Path) -> None:
    browser = needs("chromium", "chromium")
    orders = pack_request(SUBMIT_JOB_BG, b"made", b"", b"x")
    page = PAGE % (server.port, ",".join(str(byte) for byte in orders))
    done = threading.Event()

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def do_POST(self) -> None:
            self.send_response(204)
            self.end_headers()
            done.set()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                   "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",
                   f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0",
                   f"http://127.0.0.1:{pages.server_port}/"]  # fmt: skip
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            assert done.wait(60), "the page has tried all it can"
            wait_until(lambda: refusals(server) >= 6, "the browser's connections are refused")
            wait_until(lambda: " stream_broken " in server.log.read_text(), "so is the call's relay")
            assert is_untouched(server)
        finally:
            process.terminate()
            process.wait(20)
            pages.shutdown()


CURL = [
    ["--data-binary", "@orders"],
    ["--http1.0", "--data-binary", "@orders"],
    ["--http2-prior-knowledge", "--data-binary", "@orders"],
    ["-X", "status", "--data-binary", "@orders"],
    ["-H", "X: \ndrop function victim", "--data-binary", "@orders"],
    ["-T", "orders"],
]


@pytest.mark.parametrize("words", CURL, ids=lambda words: " ".join(words[:2]))
def test_what_curl_sends_achieves_nothing(server: RunningServer, tmp_path: Path, words: list[str]) -> None:
    _curl(tmp_path, *words, f"http://127.0.0.1:{server.port}/")
    wait_until(lambda: refusals(server) == 1, "the connection is refused")
    assert is_untouched(server)


OTHERS = {
    "dict": "/drop:function:victim",
    "gopher": "/1",
    "ldap": "/%0Adrop%20function%20victim%0A",
    "mqtt": "/%0Adrop%20function%20victim%0A",
    "rtsp": "/drop%20function%20victim",
}


@pytest.mark.parametrize("scheme", OTHERS)
def test_what_other_urls_make_curl_send_achieves_nothing(server: RunningServer, tmp_path: Path, scheme: str) -> None:
    """What waits for our greeting first, such as FTP, never sends anything. A gopher URL can say anything."""
    _curl(tmp_path, "--user", "\ndrop function victim\n:x", f"{scheme}://127.0.0.1:{server.port}{OTHERS[scheme]}")
    assert is_untouched(server)


def test_a_tls_hello_achieves_nothing(server: RunningServer, tmp_path: Path) -> None:
    _curl(tmp_path, "-k", "--data-binary", "@orders", f"https://127.0.0.1:{server.port}/")
    wait_until(lambda: refusals(server) == 1, "the connection is refused")
    assert is_untouched(server)


def _curl(folder: Path, *words: str) -> None:
    needs("curl", "curl")
    orders = b"\ndrop function victim\ncreate function made\n" + pack_request(SUBMIT_JOB_BG, b"made", b"", b"x")
    (folder / "orders").write_bytes(orders)
    command = ["curl", "--silent", "--max-time", "5", *words]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=30, check=False)
