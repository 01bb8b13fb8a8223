"""What a peer may do: a bit for each kind of request. Which request needs which stands in ``dispatch``."""

from __future__ import annotations

from typing import Final

SUBMIT: Final = 1  # submit jobs and hear their results
WORK: Final = 2  # register functions, take jobs and report on them
READ: Final = 4  # ask for the state of jobs and of the server
OPERATE: Final = 8  # change functions and limits, cancel jobs
EVERYTHING: Final = SUBMIT | WORK | READ | OPERATE
