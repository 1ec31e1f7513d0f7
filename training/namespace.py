"""A network that only the workers of one command share, where Linux allows it.

TensorFlow's server listens on all interfaces without a password. In a network namespace there is
nothing but the workers: see `network_namespaces(7)` and `user_namespaces(7)`.
"""

import ctypes
import os
import socket
import struct
import sys
from contextlib import suppress
from typing import NamedTuple

if sys.platform != "win32":
    import fcntl

_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000  # CLONE_NEWNET, CLONE_NEWUSER
_SET_FLAGS, _IS_UP = 0x8914, 1  # SIOCSIFFLAGS, IFF_UP of `netdevice(7)`


class Network(NamedTuple):
    """Descriptors of a namespace of networks, and of users where only in that one may be had."""

    network: int
    user: int | None


def _call(name: str, *arguments: int) -> None:
    """A function of the C library, which Python 3.12 is the first to have; OSError as it says."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def own_network() -> Network | None:
    """Makes a network with nothing but a loopback; None where the system does not allow it.

    A process of its own makes it: this one stays where it is.
    """
    if sys.platform != "linux":
        return None
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(done[1])
        with suppress(OSError, AttributeError):
            os.write(ready[1], b"u" if _enter_new() else b"n")
            os.read(done[0], 1)  # Until the parent has opened what is here.
        os._exit(0)
    os.close(ready[1])
    os.close(done[0])
    try:
        kind = os.read(ready[0], 1)
        if not kind:
            return None
        user = os.open(f"/proc/{child}/ns/user", os.O_RDONLY) if kind == b"u" else None
        return Network(os.open(f"/proc/{child}/ns/net", os.O_RDONLY), user)
    except OSError:
        return None
    finally:
        os.close(ready[0])
        os.close(done[1])
        os.waitpid(child, 0)


def _enter_new() -> bool:
    """Enters a new network; whether that took a new namespace of users as well."""
    user, group = os.getuid(), os.getgid()
    try:
        _call("unshare", _NEW_NETWORK)
        needs_user = False
    except PermissionError:
        _call("unshare", _NEW_USER | _NEW_NETWORK)
        needs_user = True
        for name, text in (
            ("uid_map", f"{user} {user} 1"),
            ("setgroups", "deny"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", _IS_UP))
    return needs_user


def enter_user(network: Network) -> None:
    """Lets this process enter the network later; it may have no other thread yet."""
    if network.user is not None:
        _call("setns", network.user, _NEW_USER)


def enter_network(descriptor: int) -> None:
    """Moves this thread, and those that it starts from then on, into a network."""
    _call("setns", descriptor, _NEW_NETWORK)
