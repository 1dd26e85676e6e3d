"""Which numeric addresses are on the public internet, by IANA's registries and by no Python's own idea.

For IPv4 that is what is not in the registry of special purposes. Of IPv6 it is the parts that are given
out to the regional registries, without the special purposes among them: the rest is nobody's.
"""

from __future__ import annotations

import ipaddress

_SPECIAL_V4 = (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",
    "100.64.0.0/10",  # shared by a carrier's customers
    "127.0.0.0/8",
    "169.254.0.0/16",  # link-local, a cloud's metadata among it
    "172.16.0.0/12",
    "192.0.0.0/24",  # protocols
    "192.0.2.0/24",  # documentation
    "192.31.196.0/24",  # AS112
    "192.52.193.0/24",  # tunnels of multicast
    "192.88.99.0/24",  # relays of 6to4
    "192.168.0.0/16",
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
)
_GIVEN_OUT_V6 = ("2001::/16", "2003::/16", "2400::/6", "2800::/6", "2c00::/12")
_SPECIAL_V6 = (
    "2001::/23",  # protocols, Teredo's tunnels among them
    "2001:db8::/32",  # documentation
    "2620:4f:8000::/48",  # AS112
)

_V4 = [ipaddress.IPv4Network(one) for one in _SPECIAL_V4]
_V6 = [ipaddress.IPv6Network(one) for one in _GIVEN_OUT_V6]
_NOT_V6 = [ipaddress.IPv6Network(one) for one in _SPECIAL_V6]


def is_public(address: str) -> bool:
    """Whether a numeric address leads to the public internet, and by no tunnel elsewhere."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _V4)
    given_out = any(ip in network for network in _V6)
    return given_out and not any(ip in network for network in _NOT_V6)
