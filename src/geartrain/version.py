"""The version of this package, in the one place that packaging, the daemon and the tools read."""

from typing import Final

VERSION: Final = "0.1.0"
