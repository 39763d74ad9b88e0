# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checksums, compressions, SipHash: each behind one small function.

All but SipHash come from the shared libraries that the plugins use, too, so a decoder is not tested here, only what is around it.
"""
import ctypes
import struct

from .fields import Damaged, Unsupported, want

LENGTH_PREFIX_BYTES = 4  # before what a compression wrote


def _function(library, name, result, *arguments):
    try:
        f = getattr(ctypes.CDLL(library), name)
    except (OSError, AttributeError):
        def missing(*_):
            raise Unsupported("%s is not on this machine" % library)
        return missing
    f.restype, f.argtypes = result, arguments
    return f


_crc32_iscsi = _function("libisal.so.2", "crc32_iscsi", ctypes.c_uint32, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32)
_xxh3_64bits = _function("libxxhash.so.0", "XXH3_64bits", ctypes.c_uint64, ctypes.c_char_p, ctypes.c_size_t)
_zstd = _function("libzstd.so.1", "ZSTD_decompress", ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
_lz4 = _function("liblz4.so.1", "LZ4_decompress_safe", ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int)


def crc32c(data):
    """ISA-L's function is the bare register: it inverts neither its seed nor its result."""
    return _crc32_iscsi(data, len(data), 0xffffffff) ^ 0xffffffff


def _crc32c_digest(data):
    return struct.pack("<I", crc32c(data))


def _xxh3_64_digest(data):
    return struct.pack("<Q", _xxh3_64bits(data, len(data)))


def _zstd_decompress(stream, raw_bytes):
    out = ctypes.create_string_buffer(raw_bytes)
    want(_zstd(out, raw_bytes, stream, len(stream)) == raw_bytes, "zstd does not decompress")
    return out.raw


def _lz4_decompress(stream, raw_bytes):
    out = ctypes.create_string_buffer(raw_bytes)
    want(_lz4(stream, out, len(stream), raw_bytes) == raw_bytes, "lz4 does not decompress")
    return out.raw


CHECKSUMS = {  # uuid -> digest of bytes
    "80b2ae4a-e537-4ea2-9b71-d557a99be828": _crc32c_digest,
    "2365c76e-66ee-4c14-810b-07242c628eeb": _xxh3_64_digest,
}
COMPRESSIONS = {  # uuid -> (stream, raw_bytes) to raw bytes
    "a4a47bfb-129e-45ad-9403-c388fa6b0a42": _zstd_decompress,
    "d5211771-f114-40ba-8bcc-9166bfda6e20": _lz4_decompress,
}


def decompress(uuid, stored, raw_bytes):
    """@stored: the whole blocks of a compressed extent. Exactly raw_bytes come back."""
    stream_bytes = struct.unpack_from("<I", stored)[0]
    want(0 < stream_bytes <= len(stored) - LENGTH_PREFIX_BYTES, "the length before a compressed stream is wrong")
    end = LENGTH_PREFIX_BYTES + stream_bytes
    want(not any(stored[end:]), "what follows a compressed stream is not zero")
    return COMPRESSIONS[uuid](stored[LENGTH_PREFIX_BYTES:end], raw_bytes)


def _rotl(x, bits):
    return ((x << bits) | (x >> (64 - bits))) & 0xffffffffffffffff


def siphash_2_4(key, data):
    mask = 0xffffffffffffffff
    k0, k1 = struct.unpack("<QQ", key)
    v0, v1, v2, v3 = k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573

    padded = data + b"\0" * (7 - len(data) % 8) + bytes([len(data) & 0xff])
    for (m,) in struct.iter_unpack("<Q", padded):
        v3 ^= m
        v0, v1, v2, v3 = _sip_rounds(2, v0, v1, v2, v3)
        v0 ^= m
    v0, v1, v2, v3 = _sip_rounds(4, v0, v1, v2 ^ 0xff, v3)
    return (v0 ^ v1 ^ v2 ^ v3) & mask


def _sip_rounds(n, v0, v1, v2, v3):
    mask = 0xffffffffffffffff
    for _ in range(n):
        v0 = (v0 + v1) & mask
        v2 = (v2 + v3) & mask
        v1 = _rotl(v1, 13) ^ v0
        v3 = _rotl(v3, 16) ^ v2
        v0 = _rotl(v0, 32)
        v2 = (v2 + v1) & mask
        v0 = (v0 + v3) & mask
        v1 = _rotl(v1, 17) ^ v2
        v3 = _rotl(v3, 21) ^ v0
        v2 = _rotl(v2, 32)
    return v0, v1, v2, v3


def selftest():
    """The published check values, so that a wrong codec is not taken for a damaged pool."""
    if crc32c(b"123456789") != 0xe3069283:
        raise Damaged("crc32c does not give its check value")
    if siphash_2_4(bytes(range(16)), bytes(range(15))) != 0xa129ca6149be45e5:
        raise Damaged("SipHash does not give its check value")
