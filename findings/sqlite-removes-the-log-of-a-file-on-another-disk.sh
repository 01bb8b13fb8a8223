#!/usr/bin/env bash
# SQLite, at the end of a file's last connection, removes the -wal of another file that has the same name and inode.
#
# When a database in WAL mode is closed, SQLite writes its log back and removes <name>-wal and <name>-shm by name. Before
# that it makes sure that the name still means the file that it has open, and compares the inode for this; the device is
# not compared. Two file systems of a kind number their first files alike. So if another disk is mounted over the folder
# while a process has the database open, and a second process makes a new database there, the first one's close removes
# the log of the second one's database, with the rows that were committed and are in the log alone: whoever opens it next
# finds none of them.
#
# Needs the right to mount, as root or in a user namespace. Ends with 0 while this is so, with 1 when it has changed.
set -euo pipefail

if [ "${1:-}" != inside ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  python3 -m venv "$folder/venv"
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check apsw==3.46.1.0  # brings an SQLite of its own
  mkdir "$folder/disk"
  namespace=(unshare --mount)
  [ "$(id -u)" = 0 ] || namespace+=(--map-root-user)
  "${namespace[@]}" bash "$0" inside "$folder"
  exit
fi

cd "$2"
venv/bin/python - <<'PYTHON'
import os
import subprocess
import sys

import apsw

FILE = "disk/jobs.sqlite"


def mount():
    subprocess.run(["mount", "-t", "tmpfs", "none", "disk"], check=True)


def made(value):
    connection = apsw.Connection(FILE)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("CREATE TABLE jobs (name)")
    connection.execute("INSERT INTO jobs VALUES (?)", (value,))
    return connection


SECOND = """
import apsw, sys
connection = apsw.Connection("disk/jobs.sqlite")
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("PRAGMA wal_autocheckpoint = 0")
connection.execute("CREATE TABLE jobs (name)")
connection.execute("INSERT INTO jobs VALUES ('kept')")
print("committed", flush=True)
sys.stdin.read()
"""

mount()
first = made("lost with its disk")
before = os.stat(FILE)
mount()
second = subprocess.Popen(
    [sys.executable, "-c", SECOND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)
assert second.stdout.readline() == "committed\n"
after = os.stat(FILE)
log_before = os.path.exists(FILE + "-wal")
first.close()
log_after = os.path.exists(FILE + "-wal")
second.kill()
second.wait()
found = apsw.Connection(FILE).execute("SELECT count(*) FROM sqlite_schema WHERE name = 'jobs'").fetchone()[0]

print(f"Python {sys.version.split()[0]}, SQLite {apsw.sqlite_lib_version()}")
print(f"  device and inode of the first file   {before.st_dev, before.st_ino}")
print(f"  device and inode of the second file  {after.st_dev, after.st_ino}")
print(f"  the second one's log is there before the first is closed: {log_before}, and after: {log_after}")
print(f"  tables that the second one's committed row stood in, found when it is opened again: {found}")
if before.st_dev == after.st_dev or before.st_ino != after.st_ino:
    sys.exit("can't be shown here: the two disks should differ, and number their files alike")
if (log_before, log_after, found) != (True, False, 0):
    sys.exit("changed: the log was there before the close, gone after it, and the row with it")
print("as described: closing the file of one disk has removed the log of another one's")
PYTHON
