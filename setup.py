"""Compiles the two inner rings with mypyc where a C compiler is found; without one, or with
GEARTRAIN_COMPILE=0, the same files are installed as they are and run interpreted."""

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup

RINGS = ("wire", "jobserver")


def extension_modules() -> list:
    wanted = os.environ.get("GEARTRAIN_COMPILE", "")
    if wanted == "0":
        return []
    compiler = os.environ.get("CC", "cc").split()[0]
    if shutil.which(compiler) is None and wanted != "1":
        print(f"no C compiler ({compiler}): geartrain is installed without its compiled parts", file=sys.stderr)
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        if wanted == "1":
            raise
        print("no mypyc: geartrain is installed without its compiled parts", file=sys.stderr)
        return []
    files = [str(path) for ring in RINGS for path in sorted(Path("src/geartrain", ring).glob("*.py"))]
    return mypycify(files, opt_level="3", group_name="geartrain_rings")


setup(ext_modules=extension_modules())
