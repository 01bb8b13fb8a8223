"""gearmand's own file of options: what gearmand takes from one is taken here, and what is not is told with its line."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from geartrain.cli.serve import command, configuration
from geartrain.daemon.config import Config
from geartrain.errors import ConfigError
from servers import free_port, needs, wait_until

PORT = 7311
PLAIN = b"--port=7311"

AS_GEARMAND = {
    "a line": PLAIN + b"\n",
    "no line end": PLAIN,
    "several lines": b"--backlog=33\n--port=7311\n--threads=2\n",
    "one line": b"--backlog=33 --port=7311 --threads=2\n",
    "blank lines": b"\n\n   \n--port=7311\n\n",
    "CR LF": b"--backlog=33\r\n--port=7311\r\n",
    "CR": b"--backlog=33\r--port=7311\r",
    "a blank": b"--port 7311\n",
    "a line end between": b"--port\n7311\n",
    "a short name": b"-p 7311\n",
    "a short name and its value": b"-p7311\n",
    "short names together": b"-Rp7311\n",
    "the start of a name": b"--por=7311 --keepalive-id=3\n",
    "a plus": b"--port=+7311\n",
    "a comment": b"# our job server\n--port=7311\n",
    "a comment without words": b"#\n--port=7311\n",
    "a comment behind": b"--port=7311 # the old one's\n",
    "a comment in Latin-1": b"# caf\xe9\n--port=7311\n",
    "a comment with a semicolon": b"; don't\n--port=7311\n",
    "a backslash at the end of a line": b"--port=7311 \\\n --threads=2\n",
    "a section": b"[gearmand]\n--port=7311\n",
    "a stray word": b"stray\n--port=7311\n",
    "words without dashes": b"backlog=33\nuser = nobody\n--port=7311\n",
    "retries without a sign": b"--port=7311 --job-retries=4294967295\n",
    "a hash in a value": b"--job-handle-prefix=#x#y --port=7311\n",
    "an apostrophe in a value": b"--job-handle-prefix=it's --port=7311\n",
    "Latin-1 in a value": b"--mysql-password=caf\xe9 --port=7311\n",
    "all beyond two dashes": b"--port=7311 -- --port=7312\n",
}
"""Files that make gearmand 1.1 listen on the port, and this job server too."""

MORE = {
    "a tab before": b"\t--port=7311\n",
    "a tab between": b"--backlog=33\t--port=7311\n",
    "double quotes": b'--port="7311"\n',
    "single quotes": b"--port='7311'\n",
    "a short name and quotes": b"-p'7311'\n",
    "a word in quotes": b'"--port=7311"\n',
    "a mark of UTF-8": b"\xef\xbb\xbf--port=7311\n",
    "an option in a comment": b"# --port=7312\n; --port=7313\n--port=7311 # --port=7314\n",
    "an option twice": b"--port=7312 --keepalive --keepalive\n--port=7311\n",
}
"""Files of which gearmand makes something else, or nothing."""


def config_of(*arguments: str) -> Config:
    """What the arguments, and the file they name, make of the daemon's options."""
    with command.make_context("serve", list(arguments)) as ctx:
        return configuration(ctx)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], str]:
    def write(data: bytes) -> str:
        (tmp_path / "gearmand.conf").write_bytes(data)
        return f"--config-file={tmp_path / 'gearmand.conf'}"

    return write


@pytest.mark.parametrize("data", [*AS_GEARMAND.values(), *MORE.values()], ids=[*AS_GEARMAND, *MORE])
def test_the_file_says_the_port(written: Callable[[bytes], str], data: bytes) -> None:
    assert config_of(written(data)).port == PORT


@pytest.mark.parametrize("data", AS_GEARMAND.values(), ids=list(AS_GEARMAND))
def test_so_it_does_to_gearmand(written: Callable[[bytes], str], data: bytes) -> None:
    program = needs("/usr/sbin/gearmand", "gearman-job-server")
    port = free_port()
    option = written(data.replace(str(PORT).encode(), str(port).encode()))
    process = subprocess.Popen([program, option, "--listen=127.0.0.1", "--log-file=none"], stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or is_open(port), "gearmand listens, or ends")
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_an_empty_file_says_nothing(written: Callable[[bytes], str]) -> None:
    assert config_of(written(b"")).port == 4730


def test_arguments_are_stronger_than_the_file(written: Callable[[bytes], str]) -> None:
    file = written(b"--port=7311 --listen=127.0.0.1 --listen=unix:/x --keepalive\n--job-handle-prefix='H:a b'")
    config = config_of(file)
    assert (config.listen, config.keepalive, config.job_handle_prefix) == (["127.0.0.1", "unix:/x"], True, "H:a b")
    config = config_of("--listen=127.0.0.2", "-p", "7312", file, "--no-keepalive")
    assert (config.listen, config.port, config.keepalive) == (["127.0.0.2"], 7312, False)


def test_flags_of_the_file_may_be_negative(written: Callable[[bytes], str]) -> None:
    assert not config_of(written(b"--no-keepalive")).keepalive


def test_words_that_are_no_option_are_remarked_and_not_shown(written: Callable[[bytes], str]) -> None:
    file = written(b"[x]\n--port=7311\nmysql-password Sesame-77\nport=7312 x\n-- --port=7313\n")
    remarks = [fields for event, fields in config_of(file).remarks if event == "words_ignored"]
    assert [fields["line"] for fields in remarks] == [1, 3, 4, 5]
    assert [fields["reason"] for fields in remarks[1:3]] == [
        "write --mysql-password for an option",
        "write --port for an option",
    ]
    assert "Sesame" not in str(remarks)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\n--nope=5\n", "--config-file is {file!r}, line 2: --nope is no option: `geartrain serve --help` lists all"),
        (b"--job_retries=5", "--config-file is {file!r}, line 1: --job_retries is no option: write --job-retries"),
        (
            b"--keepalive-i=5",
            "--config-file is {file!r}, line 1: --keepalive-i is no option: write --keepalive-idle or",
        ),
        (b"-x 5", "--config-file is {file!r}, line 1: -x is no option: `geartrain serve --help` lists all"),
        (b"--keepalive=1", "--config-file is {file!r}, line 1: --keepalive takes no value: leave out what follows the"),
        (b"-R\n\n--port", "--config-file is {file!r}, line 3: --port lacks its value: write it behind the name"),
        (b"\n--port=\n", "--port (line 2 of {file}) is '': it should be a valid integer"),
        (b"--port=$PORT", "--port (line 1 of {file}) is '$PORT': it should be a valid integer"),
        (b"-R\n-p many", "--port (line 2 of {file}) is 'many': it should be a valid integer"),
        (b"-R\n--job-retries=4294967296", "--job-retries (line 2 of {file}) is '4294967296': it should be less than"),
        (b"\r\n--ssl", "--ssl (line 2 of {file}): connections are not encrypted here"),
        (b"\n-q libpq", "--queue-type (line 2 of {file}) is 'libpq': write --store URL instead"),
        (b"\n--job-handle-prefix='H:x\n", "--config-file is {file!r}, line 2: a quote is left open: close it"),
        (b"\xff\xfe-\0-\0p\0", "--config-file is {file!r}, which is no text, or not in UTF-8: check the path"),
    ],
)
def test_what_can_not_be_taken_is_told_with_its_line(written: Callable[[bytes], str], data: bytes, told: str) -> None:
    option = written(data)
    with pytest.raises(ConfigError) as caught:
        config_of(option)
    assert str(caught.value).startswith(told.format(file=option.partition("=")[2]))


@pytest.mark.parametrize(("path", "fault"), [("missing", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_can_not_be_read_is_told(tmp_path: Path, path: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=rf"--config-file is '.*', which can't be read \({fault}\): check the path"):
        config_of(f"--config-file={tmp_path / path}")


def test_retries_may_be_written_without_a_sign() -> None:
    assert config_of("--job-retries=4294967295").job_retries == -1


def test_what_debian_starts_gearmand_with_is_understood() -> None:
    """The words of /etc/default/gearman-job-server, and those that its init script and unit add."""
    words = "--pid-file=/run/gearman/gearmand.pid --user=root --listen=localhost --daemon --log-file=/var/log/x.log"
    config = config_of(*words.split())
    assert (config.listen, config.daemon, config.log_file) == (["localhost"], True, "/var/log/x.log")
