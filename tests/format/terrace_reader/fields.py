# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bytes and their ranges."""
import struct

SECTOR = 512
U64_MAX = 2**64 - 1


class Damaged(Exception):
    """What was read breaks a rule of the format; another copy may be whole."""


class Unsupported(Exception):
    """What was read is of a version, feature or algorithm that this reader does not know: nothing may be opened."""


def want(condition, *what):
    """@what is formatted only when it is needed: the conditions are checked for every key of a pool."""
    if not condition:
        raise Damaged(what[0] % what[1:])


def want_zero(data, what):
    want(not any(data), "%s is not zero", what)


def round_up(n, unit):
    return (n + unit - 1) // unit * unit


def is_power_of_two(n):
    return n > 0 and n & (n - 1) == 0


def take(fmt, data, at=0):
    """Little endian, without padding; data that ends too early is damage."""
    fmt = "<" + fmt
    want(at + struct.calcsize(fmt) <= len(data), "a structure is cut short")
    return struct.unpack_from(fmt, data, at)


def text(data, what):
    """UTF-8 padded with zeroes."""
    body = data.rstrip(b"\0")
    want(b"\0" not in body, "%s has a zero inside", what)
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise Damaged("%s is not UTF-8" % what)
