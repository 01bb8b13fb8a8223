"""From the options to a member of a fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geartrain.errors import AddressError, ConfigError
from geartrain.fleet.member import Member
from geartrain.link.address import Address
from geartrain.store.base import StoreError
from geartrain.store.fleet import fleet_engine

if TYPE_CHECKING:
    from geartrain.daemon.config import Config
    from geartrain.jobserver import JobServer


def open_fleet(config: Config, server: JobServer) -> Member:
    """The keeper of a job server that is a member of a fleet. Raises ConfigError, with what to do."""
    if not config.advertise:
        raise ConfigError(
            f"--fleet {config.fleet} needs --advertise HOST:PORT, where the other members reach this job server"
        )
    try:
        address = Address.parse(config.advertise)
    except AddressError as error:
        raise ConfigError(f"--advertise {error}") from None
    if address.path:
        raise ConfigError(f"--advertise is {config.advertise}: members on other machines need a host and a port")
    try:
        fleet_engine(config.store)  # so that what can't be is said at once
    except StoreError as error:
        raise ConfigError(f"--fleet {config.fleet} can't be with this --store: {error}") from error
    return Member(config, server, lambda: fleet_engine(config.store), str(address))
