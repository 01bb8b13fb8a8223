"""Compiles with mypyc what does no I/O and has to do with each packet.

Where that can't be done the same files are installed as they are. They run interpreted where there is no C compiler,
where compiling fails, in an editable install, and with GEARTRAIN_COMPILE=0. With GEARTRAIN_COMPILE=1 a failure is one.
What is written in C (``by_hand``) is left out there.

The dashboard is built and packed where there is Node.js with npm; without it the job server says that it has none.

On Linux, with a Python that has a shared library, bin/geartrain is a compiled launcher (packaging/launcher.c), so that
init scripts find the daemon by its file; elsewhere, and where it can't be compiled, it is the usual script.
"""

from __future__ import annotations

import atexit
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# Layers and modules; tests/test_architecture.py knows them as well.
COMPILED = (
    "wire",
    "jobserver",
    "client/session.py",
    "worker/job.py",
    "worker/session.py",
    "worker/slots.py",
    "web/plain_request.py",
    "web/plain_connection.py",
)
BUILDING = {"bdist_wheel", "build", "build_ext", "install"}  # the commands that come to compile something
LAUNCHING = BUILDING | {"dist_info", "editable_wheel"}  # and those that write down which entry points there are

wanted = os.environ.get("GEARTRAIN_COMPILE", "")

# What an older build left in ./build would be packed into the next one.
folder = tempfile.mkdtemp(prefix="geartrain-build-")
atexit.register(shutil.rmtree, folder, ignore_errors=True)


def extension_modules() -> list[Extension]:
    if wanted == "0" or BUILDING.isdisjoint(sys.argv):
        return []
    try:
        from mypyc.build import mypycify

        where = [Path("src/geartrain", name) for name in COMPILED]
        files = [str(path) for one in where for path in ([one] if one.suffix else sorted(one.rglob("*.py")))]
        # What the layers import from others is not checked here, where none of the others' libraries are installed.
        files.insert(0, "--follow-imports=silent")
        extensions = mypycify(files, opt_level="3", group_name="geartrain_core", target_dir=folder)
        for extension in extensions:
            # Another compiler's warnings are no reason to do without; what only this library calls may be inlined.
            words = [word for word in extension.extra_compile_args if word != "-Werror"]
            extension.extra_compile_args = [*words, "-fvisibility=hidden"]
        return [*extensions, *by_hand()]
    except (Exception, SystemExit) as error:  # mypycify leaves the process where it finds a fault
        give_up(error)
        return []


def by_hand() -> list[Extension]:
    """What is written in C, on systems that can use it; all of it has a form in Python as well."""
    modules = []
    if sys.platform != "win32":
        modules.append(("geartrain.store.sql.sqlite_commit", "store/sql/sqlite_commit.c", ["dl"]))
    if sys.platform == "linux":
        modules.append(("geartrain.daemon._epoll", "daemon/_epoll.c", []))
    return [
        Extension(
            name,
            [f"src/geartrain/{source}"],
            libraries=libraries,
            extra_compile_args=["-fvisibility=hidden"],
            optional=wanted != "1",
        )
        for name, source, libraries in modules
    ]


class BuildLayers(build_ext):
    """Leaves nothing half compiled behind."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            give_up(error)
            for path in self.get_outputs():
                Path(path).unlink(missing_ok=True)
            self.extensions.clear()


class BuildPages(build_py):
    """Has the dashboard built before what is there is packed."""

    def run(self) -> None:
        if not self.editable_mode:
            try:
                build_dashboard()
            except (OSError, subprocess.CalledProcessError) as error:
                give_up(error, "dashboard")
        super().run()


def build_dashboard() -> None:
    """Build ``dashboard/``, if that is newer than what was built of it. A failure is an OSError or that of npm."""
    sources = Path("dashboard")
    made = Path("src/geartrain/web/dashboard/index.html")
    files: list[Path] = []
    for where, folders, names in os.walk(sources):
        folders[:] = [name for name in folders if name != "node_modules"]
        files.extend(Path(where, name) for name in names if name not in ("openapi.json", "schema.d.ts"))  # for types
    if made.exists() and all(file.stat().st_mtime <= made.stat().st_mtime for file in files):
        return
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("there is no npm to build it with")
    lock, installed = sources / "package-lock.json", sources / "node_modules/.package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run([npm, "ci", "--omit=dev", "--no-progress", "--loglevel=error"], cwd=sources, check=True)
    subprocess.run([npm, "run", "--silent", "build", "--", "--logLevel", "warn"], cwd=sources, check=True)


class CopyScripts(Distribution().get_command_class("build_scripts")):  # type: ignore[misc]
    """Takes the launcher as it is: it is no text whose first line names an interpreter."""

    def copy_scripts(self) -> tuple[list[str], list[str]]:
        self.mkpath(self.build_dir)
        copies = [str(Path(self.build_dir, Path(script).name)) for script in self.scripts]
        for script, copy in zip(self.scripts, copies, strict=True):
            self.copy_file(script, copy)
        return copies, copies

    def get_source_files(self) -> list[str]:
        return []  # MANIFEST.in names its source


class BoundDistribution(Distribution):
    """With the launcher in it a wheel belongs to this Python and machine, also where the layers are not compiled."""

    def has_ext_modules(self) -> bool:
        return bool(self.scripts) or super().has_ext_modules()


def launcher() -> Path | None:
    """The compiled launcher; None where the entry point's script is to be installed."""
    library = Path(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("INSTSONAME") or "")
    is_shared = sysconfig.get_config_var("Py_ENABLE_SHARED") and library.is_file()
    if wanted == "0" or LAUNCHING.isdisjoint(sys.argv) or sys.platform != "linux" or not is_shared:
        return None
    words = {
        "PYTHON_NAME": f"python{sys.version_info.major}.{sys.version_info.minor}",
        "PYTHON": os.path.realpath(sys.executable),
        "LIBPYTHON": str(library),
    }
    defines = [f"-D{name}={json.dumps(text, ensure_ascii=False)}" for name, text in words.items()]
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    flags = [word for name in ("CPPFLAGS", "CFLAGS", "LDFLAGS") for word in shlex.split(os.environ.get(name, ""))]
    made = Path(folder, "launcher", "geartrain")
    made.parent.mkdir()
    try:
        command = [*compiler, "-O2", *flags, *defines, "packaging/launcher.c", "-o", str(made), "-ldl"]
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        give_up(error)
        return None
    return made


def give_up(error: BaseException, what: str = "compiled parts") -> None:
    if wanted == "1":
        raise error
    print(f"geartrain is installed without its {what}: {error or type(error).__name__}", file=sys.stderr)


program = launcher()
setup(
    ext_modules=extension_modules(),
    scripts=[str(program)] if program else [],
    entry_points={
        "console_scripts": [] if program else ["geartrain = geartrain.cli.main:main"],
        "pytest11": ["geartrain = geartrain.contrib.pytest_plugin"],
    },
    distclass=BoundDistribution,
    cmdclass={"build_ext": BuildLayers, "build_py": BuildPages, "build_scripts": CopyScripts},
    options={"build": {"build_base": folder}},
)
