"""The house as it was drawn: layers whose arrows go only downwards, and inner layers that touch nothing outside.

The imports of every module are read from its syntax tree, wherever in the module they stand; those for type checkers
alone count as well, since they tie two modules together just as much for a reader.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import geartrain

SOURCE = Path(geartrain.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
EVERY_MODULE = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))

LEAVES = ("errors", "native", "redaction", "systemd", "units", "version")
"""Modules beside the layers that anyone may import, and that import nothing of ours."""

ARROWS: dict[str, tuple[str, ...]] = {
    "wire": (),
    "jobserver": ("wire",),
    "link": (),
    "client": ("link", "wire"),
    "worker": ("link", "wire"),
    "store": ("jobserver.records",),
    "daemon": ("store", "jobserver", "wire"),
    "web": ("daemon", "jobserver", "client", "link.address", "wire"),
    "fleet": ("daemon", "store", "jobserver", "client", "link.address", "wire"),
    "cli": ("*",),
    "contrib": ("*",),
    "__init__": ("client", "worker"),
    "__main__": ("cli",),
}
"""What each layer may import of the others; a module's name allows that module alone."""

PURE = (
    "wire", "jobserver", "client/session.py", "worker/job.py", "worker/session.py", "worker/slots.py",
    "web/plain_request.py", "web/plain_connection.py",
)  # fmt: skip
"""What does no I/O and knows no clock, log, thread or chance, layers and modules: from the standard library they may
import these."""
PURE_LIBRARY = frozenset(
    ("__future__", "abc", "array", "bisect", "calendar", "collections", "datetime", "enum", "functools", "heapq",
     "itertools", "math", "operator", "string", "struct", "types", "typing")
)  # fmt: skip
OUTSIDE_CALLS = frozenset(("open", "print", "input", "breakpoint", "exec", "eval", "__import__"))
CLOCKS = frozenset(("now", "utcnow", "today"))

PLAIN = ("wire", "jobserver", "link", "client", "worker")
"""Layers of a plain install, which has the standard library alone."""

BAD_NAMES = frozenset(("util", "utils", "helper", "helpers", "common", "manager", "managers", "misc", "handler"))
MAX_LINES = 600


def layer_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path, module_level: bool = False) -> Iterator[tuple[int, str]]:
    """(line, full name) of each module that ``path`` imports.

    ``module_level`` leaves out those that do not happen as the module is loaded: in functions, for type checkers.
    """
    tree = ast.parse(path.read_text())
    package = [SOURCE.name, *path.relative_to(SOURCE).parent.parts]
    inner = set()
    if module_level:
        late = [
            part
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
            for part in node.body
        ]
        inner = {id(node) for part in late for node in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) in inner:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                # "from package import module" ties to the module, "from module import name" to the module as well.
                inside = SOURCE.parent.joinpath(*name.split("."), alias.name)
                is_module = inside.is_dir() or inside.with_suffix(".py").exists()
                yield node.lineno, f"{name}.{alias.name}" if is_module else name


def is_allowed(importer: str, imported_name: str) -> bool:
    """Whether layer ``importer`` may import our module ``imported_name`` (without the package's name)."""
    layer = imported_name.partition(".")[0]
    if layer == importer or layer in LEAVES:
        return True
    return any(
        allowed in ("*", layer, imported_name) or imported_name.startswith(allowed + ".")
        for allowed in ARROWS.get(importer, ())
    )


@EVERY_MODULE
def test_arrows_go_downwards(path: Path) -> None:
    layer = layer_of(path)
    assert layer in ARROWS or layer in LEAVES, f"{layer} has no place in the house: draw it here and in ARCHITECTURE.md"
    wrong = [
        f"{path}:{line}: {layer} must not import {name}"
        for line, name in imported(path)
        if name.partition(".")[0] == SOURCE.name
        and name != SOURCE.name  # the bare package: its front door, checked below
        and not is_allowed(layer, name.partition(".")[2])
    ]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Neither as they are loaded nor for type checkers: a reader follows both."""
    graph = {_module_name(path): {name for _, name in _ours(path)} for path in MODULES}
    circle = _circle_in(graph)
    assert not circle, " -> ".join(circle)


def _module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join((SOURCE.name, *parts)).removesuffix(".__init__")


def _ours(path: Path) -> Iterator[tuple[int, str]]:
    """The imports of our own modules; of a package the module that it names, its own front door apart."""
    package = _module_name(path).rpartition(".")[0]
    for line, name in imported(path):
        if name.partition(".")[0] == SOURCE.name and name not in (SOURCE.name, package, _module_name(path)):
            yield line, name


def _circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Some modules each of which imports the next, the last one the first; empty if there are none."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done or name not in graph:
            return []
        for following in sorted(graph[name]):
            if circle := visit(following, [*way, name]):
                return circle
        done.add(name)
        return []

    for name in sorted(graph):
        if circle := visit(name, []):
            return circle
    return []


def test_a_circle_is_found() -> None:
    assert _circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_rules_do_not_know_the_job_server() -> None:
    """State below, rules in the middle, the border on top."""
    for path in (SOURCE / "jobserver").rglob("*.py"):
        if path.name not in ("__init__.py", "server.py"):
            wrong = [line for line, name in imported(path) if name == "geartrain.jobserver.server"]
            assert not wrong, f"{path}:{wrong[0]}: rules know the state, not the border"


@EVERY_MODULE
def test_nobody_but_the_outer_layers_uses_the_front_door(path: Path) -> None:
    """``geartrain`` itself imports client and worker, so an inner layer that imports it imports them."""
    wrong = [line for line, name in imported(path) if name == SOURCE.name]
    assert not wrong or layer_of(path) in ("cli", "contrib", "web"), f"{path}:{wrong[0]}: import the module meant"


@EVERY_MODULE
def test_the_inner_layers_touch_nothing_outside(path: Path) -> None:
    if not {layer_of(path), path.relative_to(SOURCE).as_posix()} & set(PURE):
        return
    wrong = [
        f"{path}:{line}: imports {name}, but the rules do no I/O and are told the time"
        for line, name in imported(path)
        if name.partition(".")[0] not in PURE_LIBRARY | {SOURCE.name}
    ]
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in OUTSIDE_CALLS:
            wrong.append(f"{path}:{node.lineno}: calls {called.id}()")
        if isinstance(called, ast.Attribute) and called.attr in CLOCKS:
            wrong.append(f"{path}:{node.lineno}: reads a clock with .{called.attr}()")
    assert not wrong, "\n".join(wrong)


def test_all_of_it_is_compiled_and_nothing_else() -> None:
    tree = ast.parse(Path(__file__).parents[1].joinpath("setup.py").read_text())
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    (compiled,) = [ast.literal_eval(node.value) for node in assigned if ast.unparse(node.targets[0]) == "COMPILED"]
    assert compiled == PURE


@EVERY_MODULE
def test_a_plain_install_needs_no_third_party(path: Path) -> None:
    if layer_of(path) not in PLAIN:
        return
    wrong = [
        f"{path}:{line}: imports {name} as the module is loaded"
        for line, name in imported(path, module_level=True)
        if name.partition(".")[0] not in sys.stdlib_module_names | {SOURCE.name}
    ]
    assert not wrong, "\n".join(wrong)


@EVERY_MODULE
def test_modules_are_named_by_their_noun_and_short(path: Path) -> None:
    words = set(path.stem.split("_")) | set(path.relative_to(SOURCE).parent.parts)
    assert not words & BAD_NAMES, f"{path}: name the noun that it holds"
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{path} has {lines} lines: it holds more than one noun"


def test_the_reading_of_imports_sees_every_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above are worth what ``imported`` sees."""
    package = tmp_path / "geartrain"
    for layer in ("client", "worker", "jobserver"):
        (package / layer).mkdir(parents=True)
        (package / layer / "session.py").touch()
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", package)
    probe = package / "client" / "probe.py"
    probe.write_text(
        "import geartrain.jobserver.session\n"
        "from geartrain import worker\n"
        "from geartrain.worker import session\n"
        "from geartrain.worker.session import Anything\n"
        "from ..worker import session\n"
        "from . import session\n"
        "def later():\n"
        "    import asyncio, rich.table\n"
        "if TYPE_CHECKING:\n"
        "    import mypy_extensions\n"
        "else:\n"
        "    import uvloop\n"
    )
    assert list(imported(probe)) == [
        (1, "geartrain.jobserver.session"),
        (2, "geartrain.worker"),
        (3, "geartrain.worker.session"),
        (4, "geartrain.worker.session"),
        (5, "geartrain.worker.session"),
        (6, "geartrain.client.session"),
        (8, "asyncio"),
        (8, "rich.table"),
        (10, "mypy_extensions"),
        (12, "uvloop"),
    ]
    assert [name for line, name in imported(probe, module_level=True) if line > 6] == ["uvloop"]
    assert not is_allowed("client", "worker.session")
    assert not is_allowed("client", "jobserver")
    assert not is_allowed("store", "jobserver.server")
    assert is_allowed("store", "jobserver.records")
    assert is_allowed("client", "wire.packets")
