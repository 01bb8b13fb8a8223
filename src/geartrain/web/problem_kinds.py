"""Every kind of problem that is answered over HTTP: its status, what it means and what to do.

``docs/problems.md`` is made of it, and so are the pages to which the ``type`` of a problem leads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KINDS: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {
    "Jobs": {
        "unknown-job": (
            404,
            "No job of this handle is known: it has ended and nothing is kept of it, or it was never here. To "
            "have results kept, set [a policy](policies/results.md): `results=1h`.",
        ),
        "job-failed": (
            500,
            "The job has failed; `detail` is what its worker said, `handle` and `warnings` stand beside it. The "
            "job server is well.",
        ),
        "not-in-time": (
            504,
            "A foreground job has not ended within `timeout`, or `--http-timeout`, and is gone unless others wait "
            "for it. Submit it with `background: true`, and ask for its result later.",
        ),
        "not-ready": (
            409,
            "The job still waits or runs. Ask again, or with `?wait=30` to be answered when it has ended.",
        ),
        "not-waiting": (
            409,
            "Only a dead or a delayed job can be tried again, and only a job that waits can get another priority.",
        ),
        "too-many-streams": (
            503,
            "As many [event streams](live-page.md) or [live streams](http.md#live) are open as there may be, or there "
            "is no room to follow another job. Come again after the seconds of `Retry-After`, or ask for the job's "
            "state instead.",
        ),
        "result-too-large": (
            502,
            "The worker has sent more than `--max-packet` bytes.",
        ),
        "queue-error": (
            503,
            "The job was not taken: its queue is full, the memory is, the store takes nothing at the moment, or "
            "the job server is about to stop. Try again; `detail` says which it is.",
        ),
        "argument-too-large": (
            400,
            "The name of the function or the unique is longer than `--max-function` or `--max-unique`.",
        ),
        "at-another-member": (
            409,
            "Another job server of [the fleet](fleet.md) has this job, and only that one has its workload and its "
            "events. Its state, its result, `why`, and orders are passed on by any.",
        ),
        "moved": (
            503,
            "The job went to another job server of [the fleet](fleet.md) while its result was waited for. Ask again.",
        ),
        "in-store": (
            409,
            "The workload of this job is large and in the store alone. It is read when the job is handed out.",
        ),
    },
    "Requests": {
        "invalid": (
            422,
            "A value is not allowed, is missing, or is not known; `detail` names it and what is allowed, `errors` "
            "has all of them.",
        ),
        "not-json": (
            400,
            "The body is said to be JSON and is not. Mere bytes are sent as `application/octet-stream`.",
        ),
        "refused": (
            400,
            "The request can't be understood, such as a body that is no JSON.",
        ),
        "bad-priority": (
            400,
            "`X-Gearman-Priority` is `high`, `normal` or `low`.",
        ),
        "invalid-arguments": (
            400,
            "A text command was not understood; `detail` says how it is written.",
        ),
        "invalid-argument": (
            400,
            "A packet was not understood, such as a time that is none.",
        ),
        "line-too-long": (
            400,
            "What was asked for makes a longer text command than `--max-line` allows, such as a schedule with a "
            "large workload.",
        ),
        "too-large": (
            413,
            "The body is larger than `--max-packet`, or where it is JSON than 1 MiB or 20,000 values (1000 where "
            "no job is submitted). A large workload is sent as `application/octet-stream` with its parameters in "
            "the query.",
        ),
        "too-slow": (
            408,
            "The head of the request has not come within 10 s, or its body comes slower than 64 KiB a second "
            "(`--packet-timeout`).",
        ),
        "too-much": (
            503,
            "As much is being sent by all together as the job server holds. Try again.",
        ),
        "no-function": (
            404,
            "The path names no function: `POST /FUNCTION`.",
        ),
        "no-such-path": (
            404,
            "There is nothing at this path. `/api/v1/openapi.json` lists what there is.",
        ),
        "method-not-allowed": (
            405,
            "The path does not take this method; the header `Allow` has those that it takes.",
        ),
        "not-http": (
            400,
            "What was sent is not HTTP/1.1, or may be read in two ways. The connection is closed.",
        ),
        "two-hosts": (
            400,
            "A request has one `Host`.",
        ),
        "head-too-large": (
            431,
            "The request line and the headers have 64 KiB at most.",
        ),
        "too-many-headers": (
            431,
            "A request has 100 headers at most.",
        ),
        "too-many-requests": (
            400,
            "Too many requests were sent over one connection before an answer was read.",
        ),
    },
    "Who may do what": {
        "token-needed": (
            401,
            "Send a token of the configuration as `Authorization: Bearer TOKEN`; `geartrain token` makes one.",
        ),
        "wrong-token": (
            401,
            "No such token is known: it may have been replaced, or is cut off.",
        ),
        "too-many-failures": (
            429,
            "Too many wrong tokens have come from this host. Wait as long as `Retry-After` says.",
        ),
        "not-allowed": (
            403,
            "The token lacks the role that this needs, `read`, `submit` or `operate`, or may not submit jobs of "
            "this function.",
        ),
        "csrf": (
            403,
            "A request of a session that changes something sends the session's `csrf` in the header `X-CSRF-Token`.",
        ),
        "other-origin": (
            403,
            "A page of another site may not ask this job server, not even over loopback.",
        ),
        "unknown-host": (
            421,
            "The job server does not know itself by the name in `Host`. Name it with `--http-host` if it should.",
        ),
        "no-session": (
            404,
            "There is no session to close. `POST /api/v1/session` opens one.",
        ),
    },
    "Connections": {
        "unknown-connection": (
            404,
            "No connection has this number: it has gone, or never was. `GET /api/v1/connections` lists those that "
            "there are.",
        ),
        "own-connection": (
            409,
            "The connection is one within the job server itself, such as the HTTP face submits through.",
        ),
    },
    "Functions, policies and schedules": {
        "unknown-function": (
            404,
            "No such function is known.",
        ),
        "unknown-group": (
            404,
            "No group of dead letters has this number: its letters have gone. `GET /api/v1/dead/groups` lists those "
            "that there are.",
        ),
        "in-use": (
            409,
            "A function can't be dropped while it has workers, running jobs or dead letters.",
        ),
        "not-paused": (
            409,
            "The function is not paused.",
        ),
        "unknown-policy": (
            404,
            "No policy holds for the function, or none was set by command: one of the configuration file is "
            "changed there.",
        ),
        "invalid-policy": (
            400,
            "The policy can't be read; `detail` names the key, its value and [what is allowed](reference/policies.md).",
        ),
        "unknown-schedule": (
            404,
            "There is no such schedule, or it is one of the configuration file, which is taken out there.",
        ),
        "invalid-schedule": (
            400,
            "The schedule can't be read; `detail` names the key, its value and [what is allowed](schedules.md).",
        ),
        "maxqueue": (
            503,
            "There is no room for this function, or its name is too long.",
        ),
        "no-room": (
            503,
            "There is no room for it at the moment: memory, store, or as many wait as may.",
        ),
        "not-stored": (
            503,
            "It is in force, and would be forgotten if the job server died now: the store takes nothing at the "
            "moment. It will be stored when that goes on.",
        ),
    },
    "The fleet": {
        "no-fleet": (
            404,
            "The job server is no member of [a fleet](fleet.md).",
        ),
        "fleet": (
            409,
            "The database can't be asked at the moment, or a member is not in a state for this; `detail` says which.",
        ),
        "incomplete": (
            503,
            "A live member of the fleet did not answer, so that there is no sum. Try again.",
        ),
    },
    "The job server": {
        "stopping": (
            503,
            "The job server is about to stop. Try again a little later.",
        ),
        "unreadable-answer": (
            500,
            "The job server has misunderstood itself. Please report it.",
        ),
        "fault": (
            500,
            "The job server has a fault, whose details are in its log. Please report it.",
        ),
    },
}
"""By the headings of the page. The texts are Markdown: words in backticks, and links to pages of docs/."""
