# SPDX-License-Identifier: LGPL-2.1-or-later
"""The members together: which superblock is the truth, reading from members, and what was found wrong."""
import os

from . import superblock
from .codecs import CHECKSUMS, COMPRESSIONS
from .fields import Damaged, Unsupported, want
from .sections import KIND_CHECKSUM, KIND_COMPRESSION

STATES = ("damaged copy", "missing copy", "lost", "wrong")


class Problems:
    """
    What was found wrong, each with where.

    damaged copy    a copy is bad; where another one is good, that was used
    missing copy    a copy lies on a member that was not given
    lost            no copy can be read
    wrong           a relation between whole structures does not hold
    """

    def __init__(self):
        self.list = []
        self.missing_copies_nr = 0

    def add(self, state, where, why):
        assert state in STATES
        if state == "missing copy":  # with a member left out there are as many as it had
            self.missing_copies_nr += 1
        else:
            self.list.append({"problem": state, "where": where, "why": str(why)})

    def of(self, state):
        return [p for p in self.list if p["problem"] == state]


class Device:
    """One image: an open file and the superblock that lies in it."""

    def __init__(self, path, problems):
        self.path = path
        self.fd = os.open(path, os.O_RDONLY)
        self.bytes = os.lseek(self.fd, 0, os.SEEK_END)
        self.sb = superblock.read_device(lambda at, n: os.pread(self.fd, n, at), self.bytes,
                                         lambda why: problems.add("damaged copy", path, why))

    def read(self, offset, nr_bytes):
        data = os.pread(self.fd, nr_bytes, offset)
        want(len(data) == nr_bytes, "%s ends before %d", self.path, offset + nr_bytes)
        return data


class Pool:
    """The superblock (`sb`) and the devices by slot."""

    def __init__(self, paths):
        self.problems = Problems()
        devices = [Device(p, self.problems) for p in paths]
        if len({d.sb.uuid for d in devices}) != 1:
            raise Damaged("the images are of different pools")
        self.sb = max((d.sb for d in devices), key=lambda sb: sb.seq)
        self.devices = {}
        for d in devices:
            self._take_in(d)
        self.missing = sorted(set(self.sb.members) - set(self.devices))
        self.magic = int.from_bytes(self.sb.uuid.bytes[:8], "little")

    def _take_in(self, d):
        """A device is the member of its slot if it carries that member's uuid, and a history that the newest superblock knows."""
        slot = d.sb.dev_idx
        record = self.sb.members.get(slot)
        if record is None or record.uuid != d.sb.members[slot].uuid:
            raise Damaged("%s is not a member of this pool any more" % d.path)
        if slot in self.devices:
            raise Damaged("%s and %s are the same member" % (d.path, self.devices[slot].path))
        if d.sb is not self.sb and d.sb.seq > record.seen_seq:
            raise Damaged("%s was changed without the others" % d.path)
        if d.bytes < record.bytes:
            raise Damaged("%s is shorter than its record says" % d.path)
        self.devices[slot] = d

    def option(self, name):
        return self.sb.options[name]

    def blacklisted(self, seq):
        return any(first <= seq <= last for first, last in self.sb.blacklist)

    def digest(self, slot):
        """The function of a checksum's slot."""
        return self._algorithm(slot, KIND_CHECKSUM, CHECKSUMS)

    def compression(self, slot):
        """The uuid of a compression's slot."""
        self._algorithm(slot, KIND_COMPRESSION, COMPRESSIONS)
        return self.sb.algorithms[slot].uuid

    def _algorithm(self, slot, kind, known):
        a = self.sb.algorithms.get(slot)
        want(a is not None and a.kind == kind, "algorithm slot %d", slot)
        if a.uuid not in known or a.format > 1:
            raise Unsupported("algorithm '%s' (%s), revision %d" % (a.name, a.uuid, a.format))
        return known[a.uuid]
