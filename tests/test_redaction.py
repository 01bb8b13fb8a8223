"""No password leaves in a text, however it is written and wherever it stands; what is no password stays."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geartrain import redaction
from geartrain.redaction import learn, redacted


@contextlib.contextmanager
def nothing_known() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_secrets", set())
        patch.setattr(redaction, "_known", None)
        yield


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    with nothing_known():
        yield


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at postgresql://u:Sesame-00@h:5432/db: refused", "at postgresql://u:***@h:5432/db: refused"),
        ("('POSTGRESQL://u:Ses@me/00@h')", "('POSTGRESQL://u:***@h')"),
        ("postgresql://u@h/db?password=Sesame-00&a=b", "postgresql://u@h/db?password=***&a=b"),
        ("redis://Sesame-00@h/0", "redis://***@h/0"),
        ("'redis://:Sesame-00'", "'redis://:***'"),
        ("postgresql://u:Sesame-00/db)", "postgresql://u:***)"),
        ("postgresql://u@h:Sesame-00/db", "postgresql://u@h:***"),
        ("--stroe=gearmand+mysql://u:Sesame-00@h", "--stroe=gearmand+mysql://u:***@h"),
        ("gearmand+mysql://u@h", "gearmand+mysql://u@h"),
        ("://u:Sesame-00@h", "://u:***@h"),
        ("host=x password=Sesame-00 dbname=d", "host=x password=*** dbname=d"),
        (r"'host=x password=\'Ses ame-00\' dbname=d'", "'host=x password=*** dbname=d'"),
        ("PASSWORD = 'Ses \\'ame-00' d", "PASSWORD = *** d"),
        ("password='Ses ame-00", "password=***"),
        ('{"password": "Ses ame-00", "a": 1}', '{"password": ***, "a": 1}'),
        ("{'passwd': 'Ses ame-00', 'a': 1}", "{'passwd': ***, 'a': 1}"),
        ("PGPASSWORD=Sesame-00 --redis-password=Sesame-00", "PGPASSWORD=*** --redis-password=***"),
    ],
)  # fmt: skip
def test_what_looks_like_a_password_is_hidden(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "", "check the user, the password and the database in the URL", "the password: it is wrong", "passed=3 a@b",
        "write scheme://user:password@host:port/database, and @ : / % in the password as %40 %3A %2F %25",
        "redis://name:password@host", "sqlite:////srv/a@b/jobs.sqlite", "postgresql://me@h/db, mysql://me@h",
        "tcp://[::1]:4730 and tcp://10.0.0.1:4730", "connecting to redis://h:6379.", "memcached://a:11211,b:11212/",
        "H:me@host:12", "unix:@name", "unix:/run/a@b/socket", "a://b",
    ],
)  # fmt: skip
def test_what_is_no_password_stays(text: str) -> None:
    for word in text.split():
        learn(word)
    assert redacted(text) == text


# Signs that make readers of URLs, of libpq's words and of quoted texts stumble.
_passwords = st.text(st.sampled_from("Zq9-_ /?#@:[]%&='\"\\+$;,é\t"), min_size=8, max_size=20).filter(
    lambda text: text == text.strip() and sum(map(str.isalnum, text)) >= 4
)


@given(password=_passwords)
@example(password="Zq'9\\ /@q")
def test_what_is_known_is_hidden_in_every_spelling(password: str) -> None:
    with nothing_known():
        learn(password, is_secret=True)
        for spelling in (password, quote(password), quote(password, safe=""), repr(password), json.dumps(password)):
            shown = redacted(f"FATAL <{spelling}> is wrong")
            assert spelling not in shown
            assert shown.startswith("FATAL <")
            assert shown.endswith("> is wrong")


@given(password=_passwords, as_written=st.booleans())
def test_the_password_of_a_url_is_known(password: str, as_written: bool) -> None:
    written = password if as_written else quote(password, safe="")
    alone = quote(password, safe="")  # with a colon unquoted it would be a user and a password
    for url in (f"postgresql://user:{written}@127.0.0.1/db", f"redis://:{written}@h:6379/0", f"redis://{alone}@h"):
        with nothing_known():
            learn(url)
            for text in (url, repr(url), f"can't open {url}: no", f"bad port {password!r}", f"no host {written}"):
                assert password not in redacted(text)
