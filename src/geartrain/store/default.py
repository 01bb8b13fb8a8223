"""Where jobs are kept when nobody says where: in SQLite, in the state directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

SYSTEM_FOLDER: Final = Path("/var/lib/geartrain")


def default_url() -> str:
    """The store that is used when none is named."""
    return f"sqlite:///{state_folder() / 'queue.sqlite'}"


def state_folder() -> Path:
    """The state directory of this user.

    systemd's $STATE_DIRECTORY if it is set, /var/lib/geartrain for root, else geartrain in $XDG_STATE_HOME, which is
    ~/.local/state where it is not set.
    """
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return SYSTEM_FOLDER
    home = os.environ.get("XDG_STATE_HOME", "")
    if home.startswith("/"):  # the standard says that another one is to be ignored
        return Path(home, "geartrain")
    try:
        return Path.home() / ".local/state/geartrain"
    except RuntimeError:  # a user without a home
        return SYSTEM_FOLDER


def make_state_folder() -> bool:
    """Make the state directory, for this user alone, if it is not there; whether it was made. Raises OSError."""
    folder = state_folder()
    if folder.is_dir():
        return False
    folder.mkdir(mode=0o700, parents=True)
    return True
