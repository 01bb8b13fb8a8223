"""The declaration of functions: what ``@worker.function(...)`` and ``@worker.batch(...)`` make of the function below.

The overloads say to type checkers what the code finds out by itself: which functions are raw, whether a typed one
wants its job, and what comes of coroutines and generators in the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from geartrain.worker.batch_function import BatchFunction
from geartrain.worker.calls import ClientHolder
from geartrain.worker.encoding import EncodingName, encoding
from geartrain.worker.functions import Function, Limits, RawFunction, TypedFunction, is_raw
from geartrain.worker.job import AssignedJob
from geartrain.worker.policy import Policy

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")

_Bytes = bytes | bytearray | memoryview | None
_Raw = TypeVar("_Raw", bound=_Bytes | Coroutine[Any, Any, _Bytes] | Iterator[bytes] | AsyncIterator[bytes])
_Later = Coroutine[Any, Any, R] | Generator[Any, Any, R]  # what gives R in the end
_Parts = TypeVar("_Parts", bound=Iterator[Any] | AsyncIterator[Any])

# Of batches, whose results may have exceptions in their places.
_RawList = Sequence[_Bytes | Exception] | None
_RawBatch = TypeVar("_RawBatch", bound=_RawList | Coroutine[Any, Any, _RawList])
_NoResults = TypeVar("_NoResults", bound=Coroutine[Any, Any, None] | None)
F = TypeVar("F", bound=Callable[..., Any])


class Declaration:
    """What ``worker.function(...)`` returns: the decorator that declares one function."""

    def __init__(
        self,
        add: Callable[[Function], None],
        holder: ClientHolder,
        *,
        name: str | None,
        raw: bool | None,
        encoding: EncodingName,
        limits: Limits,
        policy: Policy,
    ) -> None:
        self._add = add
        self._holder = holder
        self._name = name
        self._raw = raw
        self._encoding = encoding
        self._limits = limits
        self._policy = policy

    # A function that fits several overloads means the first of them; that is what "overlap" complains about.

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[[AssignedJob], _Raw], /
    ) -> RawFunction[Callable[[AssignedJob], _Raw]]: ...

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[AssignedJob, P], _Later[R]], /
    ) -> TypedFunction[Callable[Concatenate[AssignedJob, P], _Later[R]], P, R]: ...

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[AssignedJob, P], _Parts], /
    ) -> TypedFunction[Callable[Concatenate[AssignedJob, P], _Parts], P, None]: ...

    @overload
    def __call__(
        self, function: Callable[Concatenate[AssignedJob, P], R], /
    ) -> TypedFunction[Callable[Concatenate[AssignedJob, P], R], P, R]: ...

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> TypedFunction[Callable[P, Coroutine[Any, Any, R]], P, R]: ...

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Generator[Any, Any, R]], /
    ) -> TypedFunction[Callable[P, Generator[Any, Any, R]], P, R]: ...

    @overload
    def __call__(self, function: Callable[P, _Parts], /) -> TypedFunction[Callable[P, _Parts], P, None]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> TypedFunction[Callable[P, R], P, R]: ...

    def __call__(self, function: Callable[..., Any], /) -> Any:
        if not callable(function):
            raise TypeError(f"{function!r} is no function: write @worker.function() with its brackets")
        name = self._name or str(getattr(function, "__name__", ""))
        declared: Function
        if is_raw(function) if self._raw is None else self._raw:
            declared = RawFunction(function, name, self._limits, self._holder)
        else:
            declared = TypedFunction(function, name, self._limits, self._holder, encoding(self._encoding))
        declared.policy = self._policy
        self._add(declared)
        return declared


class BatchDeclaration:
    """What ``worker.batch(...)`` returns: the decorator that declares one batch function.

    ``make`` makes it of its original and its name. Type checkers know what a job takes and gives where the function has
    one list; of one with several they know how it is called directly.
    """

    def __init__(
        self,
        add: Callable[[Function], None],
        name: str | None,
        make: Callable[[Callable[..., Any], str], BatchFunction[Any, Any, Any]],
        policy: Policy,
    ) -> None:
        self._add = add
        self._name = name
        self._make = make
        self._policy = policy

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[[list[AssignedJob]], _RawBatch], /
    ) -> BatchFunction[Callable[[list[AssignedJob]], _RawBatch], [bytes], bytes]: ...

    @overload
    def __call__(
        self, function: Callable[[list[A]], _NoResults], /
    ) -> BatchFunction[Callable[[list[A]], _NoResults], [A], None]: ...

    @overload
    def __call__(
        self, function: Callable[[list[A]], list[R | Exception]], /
    ) -> BatchFunction[Callable[[list[A]], list[R | Exception]], [A], R]: ...

    @overload
    def __call__(
        self, function: Callable[[list[A]], list[R]], /
    ) -> BatchFunction[Callable[[list[A]], list[R]], [A], R]: ...

    @overload
    def __call__(
        self, function: Callable[[list[A]], Coroutine[Any, Any, list[R | Exception]]], /
    ) -> BatchFunction[Callable[[list[A]], Coroutine[Any, Any, list[R | Exception]]], [A], R]: ...

    @overload
    def __call__(
        self, function: Callable[[list[A]], Coroutine[Any, Any, list[R]]], /
    ) -> BatchFunction[Callable[[list[A]], Coroutine[Any, Any, list[R]]], [A], R]: ...

    @overload
    def __call__(self, function: F, /) -> BatchFunction[F, ..., Any]: ...

    def __call__(self, function: Callable[..., Any], /) -> Any:
        if not callable(function):
            raise TypeError(f"{function!r} is no function: write @worker.batch() with its brackets")
        declared = self._make(function, self._name or str(getattr(function, "__name__", "")))
        declared.policy = self._policy
        self._add(declared)
        return declared
