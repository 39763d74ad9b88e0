# SPDX-License-Identifier: LGPL-2.1-or-later
"""All keys of one btree, in order, as replay leaves them."""
from collections import namedtuple

from . import keys
from .fields import SECTOR, Damaged, round_up, take, want, want_zero

NODE_MAGIC, BSET_MAGIC = 0x65646f6e72657474, 0x7465736272657474
NODE_HEADER_BYTES, BSET_HEADER_BYTES, CSUM_AT = 72, 72, 0x28

# A node as it was reached, and where: for whoever compares nodes with what points to them.
Node = namedtuple("Node", "btree level child")


class Btree:
    """
    keys    the leaves' keys by position, replayed
    nodes   all nodes
    depth   levels, 0 of an empty btree
    """

    def __init__(self, pool, replay, btree):
        self._pool, self._replay, self._btree = pool, replay, btree
        self.nodes = []
        root = replay.roots.get(btree)
        self.depth = root.level + 1 if root else 0
        if root:
            here = [keys.Child(root.node_seq, root.sectors_written, root.ptrs, keys.POS_MIN, keys.POS_MAX)]
            for level in range(root.level, 0, -1):
                here = self._children(here, level)
            content = self._level(here, 0)
        else:
            content = self._level([], 0)
        self.keys = [content[pos] for pos in sorted(content)]

    def _level(self, children, level):
        """The merged content of all nodes of a level, under what the journal says of that level."""
        content = {}
        for child in children:
            node = Node(self._btree, level, child)
            self.nodes.append(node)
            content.update(self._read(node))
        for pos, key in self._replay.keys.get((self._btree, level), {}).items():
            if key.type == keys.DELETED:
                content.pop(pos, None)
            else:
                content[pos] = key
        return content

    def _children(self, nodes, level):
        """Of a whole level, as replayed: they follow each other, and end where the nodes above end, too."""
        content = self._level(nodes, level)
        children = [keys.child(content[pos], self._pool.sb) for pos in sorted(content)]
        ends = {c.max for c in children}
        try:
            want_children(children, keys.POS_MIN, keys.POS_MAX)
            want(all(n.max in ends for n in nodes), "a child reaches from one node into the next")
        except Damaged as e:
            self._pool.problems.add("wrong", "btree %d, level %d" % (self._btree, level), e)
        return children

    def _read(self, node):
        """From the first good copy, but all that are there are read."""
        content, problems = None, self._pool.problems
        for p in node.child.ptrs:
            where = "btree %d, level %d, node %d: member %d, sector %d" % (node.btree, node.level, node.child.node_seq, p.dev, p.sector)
            if p.dev not in self._pool.devices:
                problems.add("missing copy", where, "member missing")
                continue
            try:
                data = self._pool.devices[p.dev].read(p.sector * SECTOR, node.child.sectors_written * SECTOR)
                mine = decode(self._pool, self._replay, node, data)
            except Damaged as e:
                problems.add("damaged copy", where, e)
                continue
            if content is not None and content != mine:
                problems.add("wrong", where, "copies differ")
            content = mine if content is None else content
        if content is None:
            problems.add("lost", "btree %d, level %d, node %d" % (node.btree, node.level, node.child.node_seq), "no copy can be read")
        return content or {}


def decode(pool, replay, node, data):
    """One copy: position -> key, of all bsets that count."""
    child = node.child
    magic, node_seq, btree, level, flags, zero = take("QQBBH4s", data)
    least, greatest = _position(data, 0x18), _position(data, 0x30)
    want(magic == NODE_MAGIC ^ pool.magic and node_seq == child.node_seq, "another node, or none")
    want((btree, level, flags) == (node.btree, node.level, 0) and not any(zero), "a node of another btree or level")
    want((least, greatest) == (child.min, child.max), "a node of another range")

    content, at, dead = {}, NODE_HEADER_BYTES, False
    while at < len(data) and not dead:
        seq, bset, end = _bset(pool, node, data, at)
        dead = pool.blacklisted(seq) or seq in replay.dead
        want(dead or seq <= replay.newest_seq, "a bset is newer than the journal")
        if not dead:
            content.update(bset)
        at = round_up(end, pool.option("block_size"))
    want(dead or at == len(data), "the last bset does not end where the node does")
    content = {pos: k for pos, k in content.items() if k.type != keys.DELETED}
    if node.level:
        want_children([keys.child(content[pos], pool.sb) for pos in sorted(content)], least, greatest)
    return content


def want_children(children, least, greatest):
    """They follow each other from @least to @greatest."""
    for c in children:
        want(c.min == least, "a child begins at %s, not at %s", c.min, least)
        least = keys.successor(c.max)
    want(children and children[-1].max == greatest, "the last child does not end at %s", greatest)


def _bset(pool, node, data, at):
    """Returns its journal_seq, its keys by position, and where it ends."""
    magic, node_seq, seq, keys_bytes, keys_nr, csum_slot, zero = take("QQQIIB7s", data, at)
    want(magic == BSET_MAGIC ^ pool.magic and node_seq == node.child.node_seq, "no bset at %d", at)
    begin = at + BSET_HEADER_BYTES
    end = begin + keys_bytes
    want(keys_bytes % 8 == 0 and end <= len(data), "a bset of %d bytes", keys_bytes)
    want_zero(zero, "a bset's reserve")
    covered = data[at:at + CSUM_AT] + bytes(32) + data[begin:end]
    if at == NODE_HEADER_BYTES:
        covered = data[:NODE_HEADER_BYTES] + covered
    want(pool.digest(csum_slot)(covered).ljust(32, b"\0") == data[at + CSUM_AT:begin], "a bset's checksum, at %d", at)

    content, last, pos, only = {}, None, begin, data[:end]
    for _ in range(keys_nr):
        key, pos = keys.decode(only, pos, pool.option("btree_node_size"))
        want(last is None or last < key.pos, "keys of a bset are not in order")
        want(node.child.min <= key.pos <= node.child.max, "a key outside its node")
        want(key.type == keys.DELETED or (key.type == keys.BTREE_PTR) == (node.level > 0), "a key of type %d at level %d", key.type, node.level)
        content[key.pos] = key
        last = key.pos
    want(pos == end, "a bset's keys_nr")
    return seq, content, end


def _position(data, at):
    inode, offset, snapshot, zero = take("QQII", data, at)
    want(zero == 0, "a position's reserve")
    return inode, offset, snapshot
