"""The batch function: one call of it does many jobs.

    @worker.batch(size=64, wait=0.005)
    def embed(texts: list[str]) -> list[list[float]]: ...

Each of its parameters is a list, with one place for each job, and so is what it gives. To clients, and on the wire, it
is the function of one job: ``embed.submit("hello")`` gives one list of numbers. That function of one job is declared
as any other is, so arguments and results travel and are checked as theirs.
"""

from __future__ import annotations

import collections.abc
import inspect
import math
import types
import typing
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from geartrain.worker.calls import ClientHolder, Submittable
from geartrain.worker.encoding import EncodingName
from geartrain.worker.encoding import encoding as encoding_of
from geartrain.worker.functions import Function, Limits, RawFunction, TypedFunction, hints_of, is_kind, is_raw
from geartrain.worker.job import AssignedJob

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")

Row = tuple[tuple[Any, ...], dict[str, Any]]  # the arguments of one job, by place and by name

_LISTS = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class BatchFunction(Function, Submittable[P, R], Generic[F, P, R]):
    """A function of up to ``size`` jobs, the first of which waits at most ``wait`` seconds for the others.

    Raises ValueError or TypeError for what can't be one.
    """

    if TYPE_CHECKING:
        __call__: F
    else:

        def __call__(self, *args, **kwargs):
            return self.original(*args, **kwargs)

    def __init__(
        self,
        original: Callable[..., Any],
        name: str,
        limits: Limits,
        holder: ClientHolder,
        *,
        raw: bool | None,
        encoding: EncodingName,
        size: int,
        wait: float,
    ) -> None:
        if size < 1:
            raise ValueError(f"a batch has a size of at least one job, not {size}")
        if not 0 <= wait < math.inf:
            raise ValueError(f"wait must be a number of seconds, not {wait!r}")
        if is_kind(original, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
            raise TypeError(f"{name}: a batch function can't be a generator; its jobs can send()")
        super().__init__(original, name, limits, holder)
        self.size = size
        self.wait = wait
        one = _of_one_job(original, name)
        self._one: RawFunction[Any] | TypedFunction[Any, Any, Any]
        if is_raw(one) if raw is None else raw:
            self._one = RawFunction(one, name, limits, holder)
        else:
            self._one = TypedFunction(one, name, limits, holder, encoding_of(encoding))

    @property
    def timeout(self) -> float | None:
        """As its limit says, and the wait, which is spent after the assignment as well."""
        timeout = self.limits.timeout
        return None if timeout is None else timeout + self.wait

    def row(self, job: AssignedJob) -> Row:
        """The arguments of one job; raises ArgumentsError for those that the function does not take."""
        row: Row = self._one.start(job)
        return row

    def call(self, rows: Sequence[Row]) -> Any:
        """Call the function for these jobs; returns what it returns: the results, or a coroutine for them."""
        args, kwargs = zip(*rows, strict=True)
        return self.original(
            *(list(column) for column in zip(*args, strict=True)),
            **{name: [one[name] for one in kwargs] for name in kwargs[0]},
        )

    def outcomes(self, value: Any, jobs: int) -> Sequence[Any]:
        """What the function gave for each of so many jobs: its result, or the exception that it fails with.

        Raises TypeError for what does not say it of each.
        """
        if value is None:
            return [None] * jobs
        if not isinstance(value, (list, tuple)):
            kind = type(value).__name__
            raise TypeError(f"{self.name} gave {kind} {value!r:.80}; a batch function gives a list, or None")
        if len(value) != jobs:
            raise TypeError(f"{self.name} gave {len(value)} results for {jobs} jobs")
        return value

    def encode_outcome(self, outcome: Any) -> bytes:
        """The bytes of one job's result; raises the exception it fails with."""
        if isinstance(outcome, BaseException):
            raise outcome
        return self._one.encode_result(outcome)

    # As every function: a batch of one.

    def start(self, job: AssignedJob) -> Any:
        return self.call([self.row(job)])

    def encode_result(self, value: Any) -> bytes:
        return self.encode_outcome(self.outcomes(value, 1)[0])

    def encode_part(self, value: Any) -> bytes:
        return self._one.encode_part(value)

    def encode_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        return self._one.encode_arguments(args, kwargs)

    def decode_result(self, data: bytes) -> R:
        return cast(R, self._one.decode_result(data))


def _of_one_job(function: Callable[..., Any], name: str) -> Callable[..., Row]:
    """What ``function`` is for one job: the same without the lists, and it just gives its arguments."""

    def one(*args: Any, **kwargs: Any) -> Row:
        return args, kwargs

    try:
        hints = hints_of(function)
    except NameError as error:
        raise TypeError(f"{name}: a type hint can't be read, {error}; import it where the program runs") from None
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not parameter.empty or parameter.kind in _VARIABLE:
            raise TypeError(f"{name}: {parameter} can't be a parameter of a batch function, which gets all as lists")
        hint = hints.get(parameter.name, parameter.empty)
        if hint is not parameter.empty:
            parameters.append(parameter.replace(annotation=_place(hint, f"{name}: {parameter.name} must be a list")))
        else:
            parameters.append(parameter.replace(name="job") if parameter.name == "jobs" else parameter)
    if not parameters:
        raise TypeError(f"{name}: a batch function has a parameter, or it can't know how many jobs there are")
    result = hints.get("return", Any)
    if result is not type(None):
        result = _without_exceptions(_place(result, f"{name}: a batch function gives a list"))
    one.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    one.__annotations__ = {each.name: each.annotation for each in parameters if each.annotation is not each.empty}
    one.__annotations__["return"] = result
    return one


def _place(hint: Any, what: str) -> Any:
    """The hint for one place of a list; raises TypeError, which says ``what``, if it is none."""
    if hint is Any or isinstance(hint, typing.TypeVar):
        return Any
    if (typing.get_origin(hint) or hint) not in _LISTS:
        raise TypeError(f"{what}, with a place for each job, not {hint!r}")
    return (typing.get_args(hint) or (Any,))[0]


def _without_exceptions(hint: Any) -> Any:
    """The hint of a result in whose place an exception may stand."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    results = tuple(one for one in kinds if not (isinstance(one, type) and issubclass(one, BaseException)))
    return typing.Union[results or (None,)]  # noqa: UP007 - the kinds are known by now only
