"""The text commands of a fleet: ``fleet status``, ``history``, ``functions``, ``drain ID [off]`` and ``forget ID``.

``fleet able FUNCTION ...`` is how members ask each other for workers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from geartrain.daemon.fleet_view import leader_of, shown_members
from geartrain.fleet.moves import able_lines
from geartrain.jobserver.rights import OPERATE, READ
from geartrain.jobserver.rules.answers import OK, error, refuse
from geartrain.store.base import StoreError
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.daemon.extension import Host
    from geartrain.daemon.fleet_view import FleetView, MemberView
    from geartrain.jobserver import Peer

_USAGE = "Write fleet status, fleet history, fleet functions, fleet drain ID [off] or fleet forget ID"


class Commands:
    """Answers the text command ``fleet``."""

    def __init__(self, member: FleetView, host: Host, begin: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """``begin``: have a coroutine run on, until the daemon stops."""
        self._member = member
        self._begin = begin
        self._host = host
        host.server.add_command(b"fleet", self._answer, READ)

    def _answer(self, peer: Peer, words: list[bytes]) -> None:
        what = words[0].lower() if words else b"status"
        member = self._member
        if what == b"able":
            peer.send(b"".join(able_lines(self._host.server, words[1:])) + b".\n")
        elif what == b"status" and len(words) <= 1:
            peer.send(b"".join(self._status_lines()) + b".\n")
        elif what == b"history" and len(words) == 1:
            self._later(peer, self._history())
        elif what == b"functions" and len(words) == 1:
            self._later(peer, self._sum())
        elif what in (b"drain", b"forget") and len(words) >= 2:
            if peer.rights & OPERATE == 0:
                peer.send(b"ERR NOT_ALLOWED This+connection+has+no+right+to+fleet+%b\r\n" % what)
                self._host.server.event("request_refused", peer, {"request": "fleet"})
                return
            id = int(words[1]) if words[1].isdigit() and len(words[1]) < 19 else 0
            off = words[2:] == [b"off"] and what == b"drain"
            if not id or (words[2:] and not off):
                refuse(peer, b"INVALID_ARGUMENTS", _USAGE)
                return
            act = member.drain(id, not off) if what == b"drain" else member.forget(id)
            self._host.server.event(f"fleet_{as_text(what)}", peer, {"member": id, **({"off": True} if off else {})})
            self._later(peer, _told(act))
        else:
            refuse(peer, b"INVALID_ARGUMENTS", _USAGE)

    def _status_lines(self) -> Iterator[bytes]:
        leader = leader_of(self._member.members)
        return (member_line(each, is_leader=each.id == leader) for each in shown_members(self._member))

    async def _history(self) -> bytes:
        """Lines of ``member`` as in ``status``, the newest first, and of ``adoption``: from whom, to whom, how many
        jobs, and when the first and the last."""
        try:
            members, adoptions = await self._member.history()
        except StoreError as trouble:
            return error(b"FLEET", str(trouble))
        rows = [b"member\t" + member_line(each) for each in members]
        rows += [
            b"adoption\t%d\t%d\t%d\t%.3f\t%.3f\n" % (each.estate, each.heir, each.jobs, each.first, each.last)
            for each in adoptions
        ]
        return b"".join(rows) + b".\n"

    async def _sum(self) -> bytes:
        """``status`` of all live members in one: of each function its jobs, those that run, and its workers."""
        answers = await self._member.ask_all(b"status")
        missing = [f"member {id}: {answer}" for id, answer in answers.items() if isinstance(answer, str)]
        if missing:
            return error(b"INCOMPLETE", "; ".join(missing))
        total: dict[bytes, list[int]] = {}
        for answer in answers.values():
            assert isinstance(answer, bytes)
            for row in answer.split(b"\n"):
                name, *numbers = row.split(b"\t")
                if len(numbers) == 3:
                    before = total.get(name, [0, 0, 0])
                    total[name] = [a + int(b) for a, b in zip(before, numbers, strict=True)]
        rows = (b"\t".join([name, *(b"%d" % number for number in total[name])]) + b"\n" for name in sorted(total))
        return b"".join(rows) + b".\n"

    def _later(self, peer: Peer, work: Awaitable[bytes]) -> None:
        """Answer when the work is done; what is asked behind it waits."""
        peer.send(error(b"STOPPED", "The job server has stopped before there was an answer"))
        reply = peer.defer()

        async def finish() -> None:
            try:
                answer = await work
            except Exception as problem:
                answer = error(b"FLEET", str(problem) or repr(problem))
            self._host.open_iteration()
            reply.outbox.replace(reply.index, answer)
            reply.open = True
            reply.outbox.touch()

        self._begin(finish())


def member_line(member: MemberView, *, is_leader: bool = False) -> bytes:
    """``id, address, state, lease, draining, joined, ended, jobs adopted, version, leader, me``."""
    return b"%d\t%b\t%b\t%.1f\t%d\t%.3f\t%.3f\t%d\t%b\t%d\t%d\n" % (
        member.id, member.address.encode(), member.state.encode(), member.lease, member.draining, member.joined,
        member.ended, member.jobs_adopted, member.version.encode(), is_leader, member.is_me,
    )  # fmt: skip


async def _told(act: Awaitable[Any]) -> bytes:
    why = await act
    return error(b"FLEET", why) if why else OK
