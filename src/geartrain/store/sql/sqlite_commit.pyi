from collections.abc import Sequence

from geartrain.jobserver.records import StoredJob

class Committer:
    """Commits to the file at ``uri`` without the interpreter's lock; raises ImportError or OSError if it can't.

    ``module`` is where Python's own SQLite is, and ``greeting`` sets a connection up. ``queries`` are the question for
    owner and witness, the insertion of a row, the removal of a range, and the question for another witness. ``paths``
    are the names of the file, its log and its index, ``identities`` the files that they must mean, ``file`` and ``log``
    descriptors of the first two; the log's is -1 where there is none.
    """

    def __new__(
        cls,
        module: str,
        uri: str,
        greeting: str,
        queries: tuple[str, str, str, str],
        paths: Sequence[bytes],
        identities: Sequence[tuple[int, int] | None],
        file: int,
        log: int,
        /,
    ) -> Committer: ...
    def commit(
        self,
        added: list[StoredJob],
        removed: list[int],
        user: str,
        witness: int,
        find_witness: bool,
        salts: bytes,
        size: int,
        /,
    ) -> tuple[int, int, bytes, int]:
        """The outcome, the witness (-1: none, before and after), and the salts and the size of the log.

        The outcome is one of ``database``'s, or 3: the file or its log was found emptied or cut short.
        """

    def close(self) -> None: ...
