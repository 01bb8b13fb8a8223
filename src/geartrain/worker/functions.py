"""Declared functions: what a worker can do, how a job becomes a call, and how a result becomes bytes.

A *raw* function takes the job and gives bytes. A *typed* one takes and gives what its type hints say; its arguments
travel as a list (or an object, by their names) and are checked on arrival.

Either may be a plain function, an ``async def`` or a generator of both kinds: what a generator yields is sent as it
comes (WORK_DATA), what it returns ends the job.
"""

from __future__ import annotations

import collections.abc
import inspect
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from geartrain.errors import ArgumentsError
from geartrain.worker.calls import ClientHolder, Submittable
from geartrain.worker.encoding import Encoding
from geartrain.worker.fork import OneProcess
from geartrain.worker.hints import Check, Mismatch, check_for
from geartrain.worker.job import AssignedJob
from geartrain.worker.policy import Policy

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")

_GENERATORS = (
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
)


@dataclass(frozen=True)
class Limits:
    """What a function's jobs are allowed; times are in seconds, None means no limit.

    ``timeout``
        How long the job server waits for a job before it gives it up (CAN_DO_TIMEOUT, section 3.6). gearmand 1.1 keeps
        to it only where a connection has one job at a time, as those of ``Worker`` have.
    ``soft_limit``
        How long a job may run before SoftTimeLimitError is raised in it.
    ``hard_limit``
        How long before its process is killed, so that the job goes back to the job server.
    ``concurrency``
        How many jobs of the function, or batches of them, all processes and threads of the worker may run at once.
    """

    timeout: float | None = None
    soft_limit: float | None = None
    hard_limit: float | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        for title, limit in vars(self).items():
            if limit is not None and limit <= 0:
                raise ValueError(f"{title} must be above 0, not {limit!r}; leave it out for no limit")


class Function(ABC):
    """A declared function: its ``name``, its ``limits``, its ``policy`` and the ``original``; one call does ``size``
    jobs at most."""

    size = 1
    policy = Policy()

    def __init__(self, original: Callable[..., Any], name: str, limits: Limits, holder: ClientHolder) -> None:
        if not name or "\0" in name:
            raise ValueError(f"{name!r} can't be a function's name: it must not be empty or hold a NUL")
        self.name = name
        self.limits = limits
        self.original = original
        self.holder = holder
        self.is_async = is_kind(original, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
        self._options: dict[str, Any] = {}
        self.__doc__ = original.__doc__
        self.__name__ = getattr(original, "__name__", name)
        self.__wrapped__ = original

    @property
    def timeout(self) -> float | None:
        """How long the job server is to wait for a job, from the assignment on."""
        return self.limits.timeout

    @abstractmethod
    def start(self, job: AssignedJob) -> Any:
        """Call the function for ``job``; returns what it returns: a value, a coroutine or a generator."""

    @abstractmethod
    def encode_result(self, value: Any) -> bytes:
        """The bytes of a result; raises TypeError for what is none."""

    @abstractmethod
    def encode_part(self, value: Any) -> bytes:
        """The bytes of what a generator yields."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class RawFunction(Function, Submittable[[bytes], bytes], Generic[F]):
    """A function from a job to bytes; called, it is the ordinary function it was."""

    if TYPE_CHECKING:
        __call__: F
    else:

        def __call__(self, *args, **kwargs):
            return self.original(*args, **kwargs)

    def start(self, job: AssignedJob) -> Any:
        return self.original(job)

    def encode_result(self, value: Any) -> bytes:
        return b"" if value is None else self.encode_part(value)

    def encode_part(self, value: Any) -> bytes:
        if isinstance(value, bytes):
            return value
        if isinstance(value, (bytearray, memoryview)):
            return bytes(value)
        raise TypeError(f"{self.name} gave {type(value).__name__} {value!r:.80}; a raw function gives bytes, or None")

    def encode_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        if len(args) > 1 or kwargs or not all(isinstance(one, (bytes, bytearray, memoryview)) for one in args):
            raise ArgumentsError(f"{self.name} is a raw function: submit it with one workload in bytes")
        return bytes(args[0]) if args else b""

    def decode_result(self, data: bytes) -> bytes:
        return data


class TypedFunction(Function, Submittable[P, R], Generic[F, P, R]):
    """A function of values that travel; called, it is the ordinary function it was."""

    if TYPE_CHECKING:
        __call__: F
    else:

        def __call__(self, *args, **kwargs):
            return self.original(*args, **kwargs)

    def __init__(
        self, original: Callable[..., Any], name: str, limits: Limits, holder: ClientHolder, encoding: Encoding
    ) -> None:
        super().__init__(original, name, limits, holder)
        self.encoding = encoding
        signature = inspect.signature(original)
        parameters = list(signature.parameters.values())
        self._takes_job = bool(parameters) and is_job(parameters[0], original)
        if self._takes_job:
            del parameters[0]
            signature = signature.replace(parameters=parameters)
        self._signature = signature
        try:
            hints = hints_of(original)
            self._checks = {one.name: self._check(hints.get(one.name, Any)) for one in parameters}
            part, result = _part_and_result(original, hints.get("return", Any))
            self._part_check, self._result_check = self._check(part), self._check(result)
        except NameError as error:
            raise TypeError(f"{name}: a type hint can't be read, {error}; import it where the program runs") from None
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        self._is_generator = part is not None
        self._positional = [
            self._checks[one.name] for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        ]

    def start(self, job: AssignedJob) -> Any:
        args, kwargs = self._arguments(job.workload)
        return self.original(job, *args, **kwargs) if self._takes_job else self.original(*args, **kwargs)

    def encode_result(self, value: Any) -> bytes:
        return self.encoding.write(self._checked(self._result_check, value, "the result"))

    def encode_part(self, value: Any) -> bytes:
        return self.encoding.write_part(self._checked(self._part_check, value, "what it yields"))

    def encode_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """As a list where that will do, else as an object by the parameters' names."""
        bound = self._bind(args, kwargs)
        if not bound.kwargs:
            return self.encoding.write(bound.args)
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = self._signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                named.update(value)
            elif kind is inspect.Parameter.POSITIONAL_ONLY or (kind is inspect.Parameter.VAR_POSITIONAL and value):
                raise ArgumentsError(f"{self.name}: {name} goes by its place and others by name, which can't travel")
            elif kind is not inspect.Parameter.VAR_POSITIONAL:
                named[name] = value
        return self.encoding.write(named)

    def decode_result(self, data: bytes) -> R:
        value = self.encoding.read_last(data) if self._is_generator else self.encoding.read(data)
        result: R = self._checked(self._result_check, value, "the result")
        return result

    def decode_part(self, data: bytes) -> Any:
        """What a generator yielded, from the data of one event of the job."""
        return self._checked(self._part_check, self.encoding.read(data), "what it yields")

    def _arguments(self, workload: bytes) -> tuple[Sequence[Any], dict[str, Any]]:
        try:
            arguments = self.encoding.read(workload) if workload else []
        except ValueError as error:
            raise ArgumentsError(f"{self.name}: the workload is no {self.encoding.name}: {error}") from None
        if isinstance(arguments, (list, tuple)):
            if len(arguments) == len(self._checks) == len(self._positional):  # the usual call, without ceremony
                try:
                    return [check(one) for check, one in zip(self._positional, arguments, strict=True)], {}
                except Mismatch:  # which is told properly below
                    pass
            bound = self._bind(tuple(arguments), {})
        elif isinstance(arguments, dict) and all(isinstance(name, str) for name in arguments):
            bound = self._bind((), arguments)
        else:
            raise ArgumentsError(f"{self.name} takes a list or an object of arguments, not {arguments!r:.80}")
        return bound.args, bound.kwargs

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """Give each argument to its parameter, and check it."""
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentsError(f"{self.name}: {error}") from None
        for name, value in bound.arguments.items():
            check, kind = self._checks[name], self._signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(self._argument(check, one, name) for one in value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {key: self._argument(check, one, key) for key, one in value.items()}
            else:
                bound.arguments[name] = self._argument(check, value, name)
        return bound

    def _argument(self, check: Check, value: Any, name: str) -> Any:
        try:
            return check(value)
        except Mismatch as mismatch:
            raise ArgumentsError(f"{self.name}: {mismatch.told(name)}") from None

    def _checked(self, check: Check, value: Any, name: str) -> Any:
        try:
            return check(value)
        except Mismatch as mismatch:
            raise TypeError(f"{self.name}: {mismatch.told(name)}") from None

    def _check(self, hint: Any) -> Check:
        return check_for(hint, strict=not self.encoding.any_class)


def call_plain(function: Function, job: AssignedJob) -> bytes:
    """Do ``job`` by a function that is not async; gives the bytes of its result, and sends what it yields."""
    with OneProcess(job):
        value = function.start(job)
        if isinstance(value, GeneratorType):
            while True:
                try:
                    part = next(value)
                except StopIteration as end:
                    value = end.value
                    break
                job.send(function.encode_part(part))
        return function.encode_result(value)


async def call_async(function: Function, job: AssignedJob) -> bytes:
    """The same by a function that is async."""
    with OneProcess(job):
        value = function.start(job)
        if isinstance(value, AsyncGeneratorType):
            async for part in value:
                job.send(function.encode_part(part))
            return function.encode_result(None)
        return function.encode_result(await value)


def is_job(parameter: inspect.Parameter, function: Callable[..., Any]) -> bool:
    """Whether a parameter is for the job: by its hint or, without one, by the name ``job``."""
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return parameter.name == "job"
    # As a text it may name what is imported for type checkers alone.
    if isinstance(annotation, str):
        return annotation.rpartition(".")[2] == AssignedJob.__name__
    return annotation is AssignedJob


def is_raw(function: Callable[..., Any]) -> bool:
    """Whether a function takes nothing but the job."""
    parameters = list(inspect.signature(function).parameters.values())
    return len(parameters) == 1 and is_job(parameters[0], function)


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The hints of a function, or of an object that can be called, without one for the job."""
    call: Any = function if inspect.isroutine(function) else getattr(function, "__call__", None)  # noqa: B004
    if not inspect.isroutine(call):
        return {}
    names = {**getattr(inspect.unwrap(call), "__globals__", {}), AssignedJob.__name__: AssignedJob}
    return typing.get_type_hints(call, names)


def is_kind(function: Callable[..., Any], *tests: Callable[[Any], bool]) -> bool:
    """Whether a function passes one of the ``tests`` of ``inspect``."""
    call = getattr(function, "__call__", None)  # noqa: B004 - of an object that can be called
    return any(test(candidate) for test in tests for candidate in (function, call))


def _part_and_result(function: Callable[..., Any], hint: Any) -> tuple[Any, Any]:
    """The hints of what a function yields (None if it is no generator) and of what it returns."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    is_generator = is_kind(function, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if (origin or hint) not in _GENERATORS and not is_generator:
        return None, hint
    part = arguments[0] if arguments else Any
    result = arguments[2] if len(arguments) == 3 else Any
    return part, result
