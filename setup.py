"""Compiles the two inner layers with mypyc. Where that can't be done the same files are installed as they are.

They run interpreted where there is no C compiler, where compiling fails, in an editable install, and with
GEARTRAIN_COMPILE=0. With GEARTRAIN_COMPILE=1 a failure is one.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

LAYERS = ("wire", "jobserver")
BUILDING = {"bdist_wheel", "build", "build_ext", "install"}  # the commands that come to compile something

wanted = os.environ.get("GEARTRAIN_COMPILE", "")

# What an older build left in ./build would be packed into the next one.
folder = tempfile.mkdtemp(prefix="geartrain-build-")
atexit.register(shutil.rmtree, folder, ignore_errors=True)


def extension_modules() -> list[Extension]:
    if wanted == "0" or BUILDING.isdisjoint(sys.argv):
        return []
    try:
        from mypyc.build import mypycify

        files = [str(path) for layer in LAYERS for path in sorted(Path("src/geartrain", layer).rglob("*.py"))]
        # What the layers import from others is not checked here, where none of the others' libraries are installed.
        files.insert(0, "--follow-imports=silent")
        extensions = mypycify(files, opt_level="3", group_name="geartrain_core", target_dir=folder)
        for extension in extensions:  # another compiler's warnings are no reason to do without
            extension.extra_compile_args = [word for word in extension.extra_compile_args if word != "-Werror"]
        return extensions
    except (Exception, SystemExit) as error:  # mypycify leaves the process where it finds a fault
        give_up(error)
        return []


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


def give_up(error: BaseException) -> None:
    if wanted == "1":
        raise error
    print(f"geartrain is installed without its compiled parts: {error or type(error).__name__}", file=sys.stderr)


setup(
    ext_modules=extension_modules(),
    cmdclass={"build_ext": BuildLayers},
    options={"build": {"build_base": folder}},
)
