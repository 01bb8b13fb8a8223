"""Bytes to packets and back: numbers, layout table, parser and packing (sections 1 and 2 of the protocol)."""

from geartrain.wire.packets import LAYOUTS, pack_request, pack_response, packet_name
from geartrain.wire.parser import Packet, Parser

__all__ = ["LAYOUTS", "Packet", "Parser", "pack_request", "pack_response", "packet_name"]
