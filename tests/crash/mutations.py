#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Breaks the engine on purpose, one line at a time, and demands that the tests notice.

    mutations.py --source . --build /tmp/mutations              all of them
    mutations.py ... --budget 240 --seed 7                      the core ones and as many others as fit
    mutations.py ... --only rename                              those whose name holds the word
    mutations.py ... --check                                    only that each text is found exactly once

A mutation is (name, core?, the test that must fail, [(file, text, text in its place)]). Whoever changes such a text changes the list too: one that is not found
exactly once fails the run. A mutation that no test notices is a hole in the tests.
"""

import argparse
import pathlib
import random
import shutil
import subprocess
import sys
import time

BUILD_SECONDS = 300
TEST_SECONDS = 300
COPIED = ('core', 'plugins', 'tests', 'daemon', 'dbus', 'po', 'systemd', 'meson.build', 'meson_options.txt')

# A name, the program that meson builds, its arguments.
TESTS = {
    'ace': ('tests/crash/test-crash', ['ace']),
    'mixes': ('tests/crash/test-crash', ['mixes']),
    'alloc-model': ('tests/unit/test-alloc-model', []),
    'btree-crash': ('tests/unit/test-btree-crash', []),
    'btree-damage': ('tests/unit/test-btree-damage', []),
    'data-faults': ('tests/unit/test-data-faults', []),
    'fs-faults': ('tests/unit/test-fs-faults', []),
    'journal-cut': ('tests/unit/test-journal-cut', []),
    'journal-read': ('tests/unit/test-journal-read', []),
    'sb-cuts': ('tests/unit/test-sb-cuts', []),
    'sb-members': ('tests/unit/test-sb-members', []),
}

CORE, REST = True, False

MUTATIONS = [
    # --- what reaches the device, and when ---
    ('no flush before the commit', CORE, 'mixes', [(
        'core/journal/journal_write.c', '\t\t\tmask |= 1ull << i;\n\t}\n\tbad = mask', '\t\t\tmask |= 0;\n\t}\n\tbad = mask')]),
    ('no flush after the commit', CORE, 'ace', [(
        'core/journal/journal_write.c', 'return flush ? flush_members(j, good) : good;', '(void)flush;\n\treturn good;')]),
    ('a flush counts for writes that complete while it runs', REST, 'sb-members', [(
        'core/sb/members.c', 'note_flushed(dev, dbio->flush_covers); /* M2 */', 'note_flushed(dev, atomic_load(&dev->writes_done));')]),
    ('an extent is committed before its data has landed', CORE, 'mixes', [(
        'core/data/batch_write.c',
        '\t\t\twrite_all(ctx);\n\t\t\tr = sort_out_failed(ctx, &avoid_devs);\n\t\t}\n\t\tif (r >= 0)\n\t\t\tr = commit_written(ctx, batch);\n',
        '\t\t\tr = commit_written(ctx, batch);\n\t\t\twrite_all(ctx);\n\t\t\t(void)sort_out_failed(ctx, &avoid_devs);\n\t\t}\n')]),
    ('fsync waits for less than the newest entry of the file', CORE, 'ace', [(
        'core/data/sync.c', '\t\tif (!bytes && !file->wb_unsynced_nr) {\n\t\t\t*ret_seq = file->last_seq;\n',
        '\t\tif (!bytes && !file->wb_unsynced_nr) {\n\t\t\t*ret_seq = file->last_seq > 2 ? file->last_seq - 2 : 1;\n')]),
    ('only one copy of the data where two are asked for', REST, 'mixes', [(
        'core/data/batch_write.c', '.replicas = ter_data_opt(data, data_replicas),', '.replicas = 1,')]),
    ('only one copy of the journal where two are asked for', REST, 'mixes', [(
        'core/journal/journal_write.c', 'wanted = has_data ? ter_max(copies.meta, copies.data) : copies.meta;', 'wanted = 1;')]),
    ('the superblock\'s copies are written without a flush between them', REST, 'sb-cuts', [(
        'core/sb/sb_write.c', '\t\tt->taking_part = t->taking_part && t->r == 0;\n\t\tif (t->taking_part)\n\t\t\tsubmit_step(t, TER_BIO_FLUSH, 0, 0);\n',
        '\t\tt->taking_part = t->taking_part && t->r == 0;\n\t\tif (t->taking_part)\n\t\t\tsubmit_step(t, TER_BIO_READ, 0, 512);\n')]),
    ('the superblock says clean before all is written', CORE, 'ace', [(
        'core/super/start.c', '\tflush_members(fs);\n\tr = write_clean_section(fs, last_seq, error);', '\tr = write_clean_section(fs, last_seq, error);'), (
        'core/super/start.c', '\tr = ter_journal_stop(fs->journal, &last_seq);\n\tif (r < 0)\n\t\treturn ter_fail_errno(error, r, "The journal cannot be closed',
        '\tlast_seq = ter_journal_open_seq(fs->journal);\n\t(void)write_clean_section(fs, last_seq, error);\n'
        '\tr = ter_journal_stop(fs->journal, &last_seq);\n\tif (r < 0)\n\t\treturn ter_fail_errno(error, r, "The journal cannot be closed')]),
    ('a running pool is not marked as such', CORE, 'ace', [(
        'core/super/start.c', '\tfs->sb.sb->clean = false;\n\tfor (', '\tfor (')]),

    # --- the journal ---
    ('a torn entry of the journal is accepted', CORE, 'mixes', [(
        'core/journal/journal_scan.c', 'if (memcmp(csum, (const char *)buf + offsetof(struct ter_jentry_disk, csum), sizeof(csum)))',
        'if (memcmp(csum, (const char *)buf + offsetof(struct ter_jentry_disk, csum), 0))')]),
    ('a bucket of the ring is used again too early', REST, 'journal-cut', [(
        'core/journal/journal_ring.c', 'ring->tail != ring->cur && ring->max_seq[ring->tail] < last_seq)',
        'ring->tail != ring->cur && ring->max_seq[ring->tail] <= last_seq + 64)')]),
    ('replay begins one entry too late', CORE, 'mixes', [(
        'core/journal/journal_scan.c', '\t\tscan->best_last_seq = found->last_seq;',
        '\t\tscan->best_last_seq = found->last_seq < found->seq ? found->last_seq + 1 : found->seq;')]),
    ('last_seq says that the oldest pinned entry is not needed', CORE, 'mixes', [(
        'core/journal/journal_res.c', 'buf->last_seq = ter_min(ter_journal_oldest_(j, false), seq);',
        'buf->last_seq = ter_min(ter_journal_oldest_(j, false) + 1, seq);')]),
    ('the next start is told a wrong end of the ring', REST, 'mixes', [(
        'core/journal/journal.c', 'ter_jring_eligible_(ring) ? ring->cur + 1 : 0;', 'ter_jring_eligible_(ring) ? ring->cur : 0;')]),
    ('what lies beyond the last durable entry is not blacklisted', REST, 'ace', [(
        'core/super/start.c', '\tif (!replay || replay->blacklist_first > replay->blacklist_last)\n\t\treturn;', '\tif (sb || replay)\n\t\treturn;')]),
    ('what was replayed into a node does not pin its entry', CORE, 'ace', [(
        'core/btree/btrees.c', '\t\tter_journal_pin(bt->journal, pin_seq);\n\t\tnode->pinned = true;\n\t\tnode->pin_seq = pin_seq;\n\t}\n\tter_lock_release',
        '\t\t(void)pin_seq;\n\t}\n\tter_lock_release')]),
    ('a newer key is replayed before an older one', CORE, 'ace', [(
        'core/recovery/replay.c', 'return a->order < b->order ? -1 : a->order > b->order;', 'return a->order > b->order ? -1 : a->order < b->order;')]),
    ('data in the journal is not replayed', CORE, 'ace', [(
        'core/recovery/replay.c', '\t\t\tif (rec.type == TER_JREC_DATA)\n', '\t\t\tif (rec.type == TER_JREC_DATA && !data)\n')]),
    ('data in the journal is replayed over what is newer', CORE, 'mixes', [(
        'core/recovery/replay.c', 'else if (rec.type == TER_JREC_DATA_DONE)', 'else if (rec.type == TER_JREC_DATA_DONE && !data)')]),
    ('data is called written that was journaled later', REST, 'mixes', [(
        'core/data/commit.c', 'to << TER_SECTOR_SHIFT, arg->batch->seq, &arg->mem->done[used++]);',
        'to << TER_SECTOR_SHIFT, ter_max(arg->batch->seq, ter_journal_open_seq(ter_data_journal(arg->data)) - 1),\n\t\t\t     &arg->mem->done[used++]);')]),
    ('the clock of inode numbers is not replayed', REST, 'ace', [(
        'core/recovery/replay.c', 'numbers->next_inum = ter_max(numbers->next_inum, clock.next_inum);', 'numbers->next_inum = ter_max(numbers->next_inum, (uint64_t)0);')]),

    # --- btrees ---
    ('a node is written before the journal holds what is in it', CORE, 'btree-crash', [(
        'core/btree/node_write.c', 'r = newest_seq ? ter_journal_flush(b->bt->journal, newest_seq) : 0; /* T7 */', 'r = 0; (void)newest_seq;')]),
    ('the pin of a node being written is dropped early', CORE, 'mixes', [(
        'core/btree/cache.c', '\tnode->writing_pinned = node->pinned;\n\tnode->writing_pin_seq = node->pin_seq;\n',
        '\tif (node->pinned)\n\t\tter_journal_unpin(node->tree->bt->journal, node->pin_seq);\n\tnode->writing_pinned = false;\n')]),
    ('a copy of a node that missed a write is taken for whole', REST, 'mixes', [(
        'core/btree/node_codec.c', '\t\tr = decode_bset(geo, buf, bytes, at, id, seq_max, content, &len, ret_why);\n\t\tif (r < 0)\n\t\t\treturn r;',
        '\t\tr = decode_bset(geo, buf, bytes, at, id, seq_max, content, &len, ret_why);\n\t\tif (r < 0 && at)\n\t\t\tbreak;\n\t\tif (r < 0)\n\t\t\treturn r;')]),
    ('the checksum of a node is not verified', REST, 'btree-damage', [(
        'core/btree/node_codec.c', '\tif (memcmp(stored, csum, sizeof(stored)))', '\tif (memcmp(stored, csum, 0))')]),
    ('a counter\'s delta is dropped', CORE, 'ace', [(
        'core/btree/commit.c', '\t\t\tsum += (uint64_t)u->deltas[i];', '\t\t\tsum += (uint64_t)u->deltas[i] * (i < 1);')]),

    # --- space ---
    ('a bucket is used again before what freed it is durable', CORE, 'mixes', [(
        'core/alloc/discard.c', '\tr = ter_journal_flush(journal, ter_journal_open_seq(journal));', '\tr = 0;')]),
    ('a bucket keeps its generation when it is used again', REST, 'alloc-model', [(
        'core/alloc/discard.c', '.gen = from.gen + 1 }; /* B1 */', '.gen = from.gen }; /* B1 */')]),
    ('a backpointer stays when its pointer goes', CORE, 'ace', [(
        'core/alloc/stage.c', '\treturn ter_trans_update(trans, TER_BTREE_BACKPOINTERS, pos, &old, NULL);', '\treturn 0;')]),
    ('the index of free space is not told', REST, 'ace', [(
        'core/alloc/stage.c', '\t\tr = ter_free_space_take(trans, dev, bucket);', '\t\tr = 0;')]),

    # --- data ---
    ('the checksum of data is not verified', REST, 'data-faults', [(
        'core/data/read.c', 'if (memcmp(digest, want, e->digest_bytes) != 0)', 'if (memcmp(digest, want, 0) != 0)')]),
    ('truncation leaves what was beyond the end', CORE, 'ace', [(
        'core/data/punch.c', '\tr = zero_edge(op, op->from, head_end);\n\tif (r < 0 ||', '\tr = 0;\n\tif (r < 0 ||')]),
    ('the zeros of a hole\'s edges are not in the journal', REST, 'mixes', [(
        'core/data/punch.c', '\t\tr = ter_trans_log(trans, TER_JREC_DATA, iov, 2);', '\t\tr = iov[1].iov_len > TER_MIB(64);')]),

    # --- files and directories ---
    ('rename is a link and an unlink', CORE, 'ace', [(
        'core/fs/rename.c', '\t\tr = ter_dirent_remove(trans, from->pos, from->name, from->name_bytes);', '\t\tr = 0;'), (
        'core/fs/rename.c', '/* --- around it --- */\n', '''static int second_fn(struct ter_trans *trans, void *arg)
{
	struct rename *n = arg;

	return ter_dirent_remove(trans, n->from.pos, n->from.name, n->from.name_bytes);
}

'''), (
        'core/fs/rename.c', '\tr = ter_trans_run(vfs->config.btrees, ter_op_trans_flags(n->op), rename_fn, n, &seq);\n',
        '''	r = ter_trans_run(vfs->config.btrees, ter_op_trans_flags(n->op), rename_fn, n, &seq);
	if (r >= 0 && !is_exchange(n) && !(n->flags & RENAME_WHITEOUT)) {
		ter_journal_want_roots(atomic_load(&vfs->journal));
		(void)ter_journal_flush(atomic_load(&vfs->journal), seq);
		r = ter_trans_run(vfs->config.btrees, 0, second_fn, n, &seq);
	}
''')]),
    ('an unlinked name does not count', CORE, 'mixes', [(
        'core/fs/link.c', '\t\tu->attr.nlink--;\n', '\t\tu->attr.nlink -= u->attr.nlink == 1;\n')]),
    ('files without a name are not noted', REST, 'ace', [(
        'core/fs/link.c', '\tif (r >= 0 && !u->attr.nlink)\n\t\tr = ter_orphan_stage(trans, u->inode, true);\n', '')]),
    ('files without a name stay after a crash', CORE, 'ace', [(
        'core/super/recover.c', '\t\tr = ter_vfs_reap_orphans(fs->vfs);\n', '\t\tr = 0;\n')]),
    ('two names with one hash are one', REST, 'fs-faults', [(
        'core/fs/dirent_value.c', 'if (dent.name_bytes == bytes && !memcmp(dent.name, name, bytes)) {\n\t\t\t*ret = dent;', 'if (bytes) {\n\t\t\t*ret = dent;')]),
    ('write-back stages the times of before', REST, 'mixes', [(
        'core/fs/inode_stage.c', 'kept = inode->lazy && attr->ctime_ns > ter_max(inode->attr.ctime_ns, inode->ctime_before_ns);', 'kept = inode->lazy && inode->gone;')]),
    ('fsync of a directory waits for less than its newest entry', CORE, 'ace', [(
        'core/fs/file_io.c', '\t\tter_journal_flush_async(journal, seq, waiter);', '\t\tter_journal_flush_async(journal, seq > 2 ? seq - 2 : 1, waiter);')]),
]


def sh(args, cwd=None, limit=None):
    return subprocess.run(args, cwd=cwd, timeout=limit, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', check=False)


def apply(text, edits, name):
    for path, old, new in edits:
        nr = text[path].count(old)
        if nr != 1:
            sys.exit(f'mutation "{name}": its text is {nr} times in {path}, not once; whoever changed that code updates this list')
        text[path] = text[path].replace(old, new)
    return text


def copy_changed(old, new):
    """What differs gets the time of now, so that an object made from a mutation is never taken for newer than its source."""
    new = pathlib.Path(new)
    if not new.exists() or new.read_bytes() != pathlib.Path(old).read_bytes():
        shutil.copyfile(old, new)
        shutil.copymode(old, new)


def copy(source, tree):
    tree.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, tree / name, dirs_exist_ok=True, copy_function=copy_changed, ignore=shutil.ignore_patterns('__pycache__', '*.orig'))
        elif (source / name).exists():
            copy_changed(source / name, tree / name)


class Engine:
    def __init__(self, source, build):
        self.tree, self.build = build / 'source', build / 'build'
        copy(source, self.tree)
        if not (self.build / 'build.ninja').exists():
            done = sh(['meson', 'setup', '-Doptimization=1', '-Ddebug=false', str(self.build), str(self.tree)])
            if done.returncode:
                sys.exit(done.stdout)

    def make(self, targets):
        return sh(['ninja', '-C', str(self.build), *targets], limit=BUILD_SECONDS * 10)

    def run(self, test, seed, **more):
        program, args = TESTS[test]
        env = dict(more, TER_CRASH_FAILURES='1', TER_TEST_SEED=str(seed), PATH='/usr/bin:/bin', TERRACE_PLUGIN_PATH=str(self.build / 'plugins'))
        began = time.monotonic()
        try:
            done = subprocess.run([str(self.build / program), *args], timeout=TEST_SECONDS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  errors='replace', env=env, cwd=self.build, check=False)
            return done.returncode, done.stdout, time.monotonic() - began
        except subprocess.TimeoutExpired:
            return 0, 'it took too long', time.monotonic() - began


def first_word_of(output):
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for n, line in enumerate(lines):
        if 'TER_CRASH_REPLAY=' in line or 'the workload itself' in line or 'Assertion' in line or 'error: Failure' in line or 'deadlock' in line:
            return line if 'TER_CRASH' not in line or n + 1 == len(lines) else lines[n + 1]
    return lines[-1] if lines else ''


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--source', type=pathlib.Path, required=True)
    parser.add_argument('--build', type=pathlib.Path)
    parser.add_argument('--budget', type=float, help='seconds; then no further one begins')
    parser.add_argument('--seed', type=int, default=int(time.time()) // 86400, help='of the order, and of the tests')
    parser.add_argument('--only', default='')
    parser.add_argument('--check', action='store_true')
    options = parser.parse_args()
    began = time.monotonic()

    for name, _, test, edits in MUTATIONS:
        if test not in TESTS:
            sys.exit(f'mutation "{name}": no test is called {test}')
        apply({path: (options.source / path).read_text() for path, _, _ in edits}, edits, name)
    if options.check:
        print(f'{len(MUTATIONS)} mutations, each found once')
        return
    if not options.build:
        sys.exit('--build is missing')
    todo = [m for m in MUTATIONS if options.only in m[0]]
    if options.budget:
        order = random.Random(options.seed)
        order.shuffle(todo)
        todo.sort(key=lambda m: not m[1])
    print(f'seed {options.seed}', flush=True)

    engine = Engine(options.source, options.build)
    targets = sorted({TESTS[m[2]][0] for m in todo})
    done = engine.make(targets)
    if done.returncode:
        sys.exit(done.stdout)
    for test in sorted({m[2] for m in todo}):
        result, output, _ = engine.run(test, options.seed, TER_CRASH_STATES='300')
        if result:
            sys.exit(f'{test} fails without any mutation:\n{output}')
    ran, survivors = 0, []
    for name, core, test, edits in todo:
        if options.budget and time.monotonic() - began > options.budget:
            break
        before = {path: (engine.tree / path).read_text() for path, _, _ in edits}
        try:
            for path, text in apply(dict(before), edits, name).items():
                (engine.tree / path).write_text(text)
            done = engine.make([TESTS[test][0]])
            if done.returncode:
                sys.exit(f'mutation "{name}" does not compile:\n{done.stdout}')
            result, output, seconds = engine.run(test, options.seed)
        finally:
            for path, text in before.items():
                (engine.tree / path).write_text(text)
        ran += 1
        if result:
            print(f'{"core" if core else "    "}  {name}: caught by {test} in {seconds:.1f} s: {first_word_of(output)[:150]}', flush=True)
        else:
            survivors.append(name)
            print(f'SURVIVES: {name} ({test}, {seconds:.1f} s): {first_word_of(output)[:150]}', flush=True)
    print(f'{ran} of {len(MUTATIONS)} mutations, {len(survivors)} not noticed, {time.monotonic() - began:.0f} s')
    sys.exit(1 if survivors else 0)


main()
