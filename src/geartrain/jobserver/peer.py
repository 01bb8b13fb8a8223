"""The job server's picture of one connection; it may act as client, worker and admin at once (section 1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.journal import Slot
from geartrain.native import i64
from geartrain.wire.packets import ERROR, response_head
from geartrain.wire.parser import Parser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.function import Ability, Function
    from geartrain.jobserver.job import Job, Listener

BIG_PIECE: Final = 32 * 1024  # pieces from this size on are written as they are, without another copy
FEW: Final = 8  # abilities that are looked through faster than looked up, and without a dict for each worker
MAX_FORMER: Final = 1000  # jobs taken from a worker that it may still report on


@final
class Peer:
    """One connection: what it can do, what it runs, what it waits for and what is to be written to it."""

    def __init__(self, touched: list[Peer], host: str, fd: int, parser: Parser, exceptions: bool) -> None:
        self.host: str = host
        self.fd: int = fd
        self.client_id: bytes = b""
        self.owner: object = None  # for the shell: its connection
        self.parser: Parser = parser
        self.exceptions: bool = exceptions  # wants WORK_EXCEPTION; else it gets WORK_FAIL

        # As worker.
        self.first_ability: Ability | None = None  # the ring: whose turn it is comes first
        self.last_ability: Ability | None = None
        self.ability_count: i64 = 0
        self.had_turn: bool = False  # whether it has been given a job in turn
        self.abilities: dict[bytes, Ability] | None = None  # by function name, once there are more than a FEW
        self.running: Job | None = None  # most recently assigned first
        self.former: dict[int, None] | None = None  # numbers of jobs that were taken from it
        self.sleeping: bool = False
        self.woken_for: Function | None = None  # got a NOOP for this function and has not grabbed since
        self.woken_until: float = 0.0  # when our patience with it ends
        self.previous_woken: Peer | None = None  # in the server's list of woken peers
        self.next_woken: Peer | None = None

        # As client.
        self.listening: Listener | None = None
        self.last_function: Function | None = None  # the function it used last

        # Input that waits.
        self.partial_since: float = 0.0  # when the half-sent packet began; 0: there is none
        self.partial_size: i64 = 0  # bytes of it that have come
        self.listing: Iterator[bytes] | None = None  # a long text answer under way
        self.stalled: bool = False  # whole messages wait in the parser until the output has been taken

        # Output.
        self.pieces: list[bytes] = []
        self.unsent: i64 = 0  # bytes in pieces
        self.big: bool = False  # whether one of them is a BIG_PIECE
        self.first_slot: Slot | None = None  # nothing from the first slot on may be written yet
        self.last_slot: Slot | None = None
        self.taken: i64 = 0  # pieces ever taken: the index of pieces[0]
        self.touched: bool = False
        self.all_touched: list[Peer] = touched
        self.closing: bool = False  # to be closed once what take() gives has been written
        self.gone: bool = False

    def send(self, piece: bytes) -> None:
        """Add a whole packet, or a part of one, to what is to be written."""
        size: i64 = len(piece)
        self.pieces.append(piece)
        self.unsent += size
        if size >= BIG_PIECE:
            self.big = True
        if not self.touched:
            self.touched = True
            self.all_touched.append(self)

    def touch(self) -> None:
        """Have the shell look at this peer at the end of the turn."""
        if not self.touched:
            self.touched = True
            self.all_touched.append(self)

    def hold(self) -> Slot:
        """Put a slot at the piece sent last: it, and all behind it, waits until the slot is open."""
        slot = Slot(self, self.taken + len(self.pieces) - 1)
        last = self.last_slot
        if last is None:
            self.first_slot = slot
        else:
            last.next_of_peer = slot
        self.last_slot = slot
        return slot

    def replace(self, index: i64, piece: bytes) -> None:
        """Another piece in the place of one that is held."""
        at: i64 = index - self.taken
        if self.gone or at < 0:
            return
        self.unsent += len(piece) - len(self.pieces[at])
        self.pieces[at] = piece
        if len(piece) >= BIG_PIECE:
            self.big = True

    def send_error(self, code: bytes, text: bytes) -> None:
        """Answer with an ERROR packet (section 1.7)."""
        self.send(b"%b%b\0%b" % (response_head(ERROR, len(code) + 1 + len(text)), code, text))

    def close(self) -> None:
        """Have the connection closed after what is still to be written."""
        self.closing = True
        self.touch()

    def take(self) -> list[bytes]:
        """What is to be written now: a few buffers, none of them empty; small pieces are joined."""
        self.touched = False
        pieces = self.pieces
        if self.first_slot is not None:
            pieces = self._free_pieces()
        if not pieces:
            return []
        if pieces is self.pieces:
            self.taken += len(pieces)
            self.unsent = 0
        if not self.big:
            joined = [b"".join(pieces)] if len(pieces) > 1 else [pieces[0]]
            pieces.clear()
            return joined
        if pieces is self.pieces:
            self.pieces = []
            self.big = False
        buffers: list[bytes] = []
        run: list[bytes] = []
        for piece in pieces:
            if len(piece) < BIG_PIECE:
                run.append(piece)
                continue
            if run:
                buffers.append(b"".join(run))
                run = []
            buffers.append(piece)
        if run:
            buffers.append(b"".join(run))
        return buffers

    def _free_pieces(self) -> list[bytes]:
        """The pieces before the first slot that is not open, taken out."""
        slot = self.first_slot
        while slot is not None and slot.open:
            slot = slot.next_of_peer
        self.first_slot = slot
        if slot is None:
            self.last_slot = None
            return self.pieces
        count: i64 = slot.index - self.taken
        free = self.pieces[:count]
        self.pieces = self.pieces[count:]
        self.taken += count
        for piece in free:
            self.unsent -= len(piece)
        return free

    def ability(self, name: bytes) -> Ability | None:
        """What it can do under this name."""
        if self.abilities is not None:
            return self.abilities.get(name)
        ability = self.first_ability
        while ability is not None and ability.function.name != name:
            ability = ability.next
        return ability

    def add_ability(self, ability: Ability) -> None:
        """A new ability; the one registered last is the first to be asked."""
        first = self.first_ability
        ability.next = first
        if first is None:
            self.last_ability = ability
        else:
            first.previous = ability
        self.first_ability = ability
        self.ability_count += 1
        if self.abilities is not None:
            self.abilities[ability.function.name] = ability
        elif self.ability_count > FEW:
            self.abilities = {each.function.name: each for each in self.list_abilities()}

    def remove_ability(self, ability: Ability) -> None:
        """Forget an ability."""
        ability.leave_ring()
        self.ability_count -= 1
        if self.abilities is not None:
            del self.abilities[ability.function.name]

    def list_abilities(self) -> list[Ability]:
        """All abilities, in the order in which they take turns."""
        abilities: list[Ability] = []
        ability = self.first_ability
        while ability is not None:
            abilities.append(ability)
            ability = ability.next
        return abilities

    def remember_former(self, number: i64) -> None:
        """The job with this number was taken from this worker: late reports on it are no error."""
        former = self.former
        if former is None:
            former = {}
            self.former = former
        elif len(former) >= MAX_FORMER:
            for oldest in former:
                del former[oldest]
                break
        former[number] = None

    def __repr__(self) -> str:
        name = self.client_id.decode("utf-8", "replace") or "-"
        return f"<Peer {self.fd} {self.host} {name}>"
