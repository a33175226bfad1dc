#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Put known bugs back, one at a time, and count the tests that notice.

Each entry of MUTATIONS is a bug of the list B1..B20, the loss of one of the
rules that upstream lacks, or a mistake in the index, as a replacement of text
that occurs once in one file of dax/.  The sources are copied, the copy is
changed, built, and the tests run over it.  A bug that no test notices is a failure, and so is an
entry whose text is no longer there.

Not in the list: B6 (a refcounted huge mapping marked special) has no
counterpart here, because there is no special mapping; B20's kernel form and
B19's live in dax/rw.c.  B4 and B5 are mistakes of a filesystem; what stands
for them is a final break that does not do its work.

usage: mutate.py SOURCE_ROOT [ID...]
"""
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SUITES = ['folio', 'fault', 'share', 'break', 'writeback', 'pin', 'failure',
          'model']
# The index is beneath all of them and has a suite of its own.
ONLY = {'xarray.c': ['xarray']}
SUITE_TIMEOUT = 100
MODEL_STEPS = '60000'

MUTATIONS = [
    ('B1', 'entry.c', 'owner of a zero entry is dropped',
     '\tif (dax_is_real_entry(entry))\n\t\tfolio_disassociate',
     '\tif (!dax_is_empty_entry(entry))\n\t\tfolio_disassociate'),
    ('B1-fault', 'fault.c', 'owner of a zero entry is dropped by a fault',
     'if (dax_is_real_entry(c->entry)) /* H8, B1 */',
     'if (!dax_is_empty_entry(c->entry))'),
    ('B2', 'folio.c', 'order stays after the teardown',
     '\tset_order(head, 0);\n', ''),
    ('B3', 'entry.c', 'pause where reset is meant',
     '\txas_reset(xas);\n\txas_unlock(xas);\n\twait_sleep(&w, 0);',
     '\txas_pause(xas);\n\txas_unlock(xas);\n\twait_sleep(&w, 0);'),
    ('B4', 'layout.c', 'final break does not wait nor delete',
     '\tint ret = dax_break_layout_inode(mapping, &brk);\n\n\tassert',
     '\tint ret = brk.unlock && mapping ? 0 : 1;\n\n\tassert'),
    ('B7', 'layout.c', 'folio of an entry that has none',
     'folio = dax_is_real_entry(entry)', 'folio = entry'),
    ('B8', 'folio.c', 'unflagged shared block is counted',
     '\tif (!shared)\n\t\treturn -EUCLEAN;', '\tif (false)\n\t\treturn 0;'),
    ('B9', 'folio.c', 'union is not cleared',
     '\tatomic_store(&folio->share, 0);\n\tatomic_store(&folio->mapping, '
     'NULL);', '\tatomic_store(&folio->mapping, NULL);'),
    ('B10', 'folio.c', 'nothing serialises owners',
     'atomic_fetch_or_explicit(&chunk->flags, FOLIO_LOCKED,',
     'atomic_fetch_or_explicit(&chunk->flags, 0,'),
    ('B11', 'folio.c', 'wake at zero only (H1)',
     '\tif (refs_of(count) != maps_of(count))\n\t\treturn;',
     '\tif (refs_of(count) != 0)\n\t\treturn;'),
    ('B11-sleep', 'folio.c', 'sleep until zero (H1)',
     'while (!ret && dax_folio_is_busy(folio)) {',
     'while (!ret && folio_refcount(folio)) {'),
    ('B12', 'folio.c', 'share below zero is not seen',
     'assert(owner || share > 0);', 'assert(owner || share + 1 > 0);'),
    ('B13', 'layout.c', 'nothing busy is taken for busy',
     'return 0; /* B13: nothing busy is success */', 'return -EAGAIN;'),
    ('B14', 'entry.c', 'huge fault waits for a small entry',
     'if (dax_entry_order(entry) < order)',
     'if (dax_entry_order(entry) < order && !dax_is_locked(entry))'),
    ('B15', 'entry.c', 'removal wakes one',
     'wake_entry(xas, entry, WAKE_ALL);', 'wake_entry(xas, entry, WAKE_NEXT);'),
    ('B15-refused', 'writeback.c', 'refused invalidation wakes nobody',
     '\t\t\tdax_put_unlocked_entry(&xas, entry, WAKE_ALL);\n', ''),
    ('B16', 'entry.c', 'the turn is not passed on',
     'if (entry && !dax_is_conflict(entry))\n\t\twake_entry(xas, entry, '
     'mode);', '(void)xas;\n\t(void)entry;\n\t(void)mode;'),
    ('B17', 'rw.c', 'dirty entries survive a copy on write',
     '\tif (dirty_too)\n', '\tif (false)\n'),
    ('B18', 'rw.c', 'nothing to read is read',
     '\tif (len == 0 || pos >= size)\n\t\treturn 0; /* B18 */\n', ''),
    ('B19', 'rw.c', 'error of a cancel is lost',
     'return err ? err : ret;', 'return ret ? ret : err;'),
    ('B19-fault', 'fault.c', 'error of a cancel is lost by a fault',
     'if (err) /* B19', 'if (err && !(ret & VM_FAULT_ERROR)) /* B19'),
    ('B20', 'rw.c', 'media error counts as different',
     '\t\tif (got < 0)\n\t\t\treturn (int)got;\n\t\tsame',
     '\t\tsame'),
    ('R-a', 'fault.c', 'refault of a shared page counts again',
     'bool keep = same_block(c, new) ||',
     'bool keep = (same_block(c, new) && !is_shared(c)) ||'),
    ('R-b', 'fault.c', 'shared extents are mapped huge',
     'if (c->order && !c->write && is_shared(c))', 'if (false)'),
    ('R-c', 'fault.c', 'page is replaced inside a huge entry',
     'if (!c->order && dax_is_pmd_entry(c->entry) && !same_block(c, new)) {',
     'if (false) {'),
    ('R-c-flush', 'fault.c', 'huge entry goes without a flush',
     '\tret = dax_flush_entry(c->mapping, dax_entry_first(c->first, '
     'c->entry),\n\t\t\t      c->entry);\n', '\tret = 0;\n'),
    ('H2', 'layout.c', 'sleep with the lock held',
     '\t\tbrk->unlock(brk);\n\t\tret = sleep_on_folio(brk, mapping, '
     'folio);\n\t\tbrk->lock(brk);',
     '\t\tret = sleep_on_folio(brk, mapping, folio);'),
    ('H4', 'layout.c', 'two files spin',
     'ret = sleep_on_folio(brk, m2, busy);', 'ret = 0;'),
    ('H6', 'layout.c', 'range is not rounded out',
     '\tround_out(mapping, &first, &last);\n',
     '\tif (false)\n\t\tround_out(mapping, &first, &last);\n'),
    ('H8', 'folio.c', 'block is handed back under a pin',
     '\tif (page_idle(page))\n\t\treturn true;\n\tassert',
     '\tif (pfn + 1)\n\t\treturn true;\n\tassert'),
    ('I2', 'folio.c', 'pin without a mapping',
     'if (maps_of(old) == 0)', 'if (false)'),
    ('I2-recheck', 'gup.c', 'mapping is not looked at again',
     '\tif (mapper->lookup(vma, index, write, &again) && again == pfn &&\n'
     '\t    folio_at(mapping->dev->folios, pfn) == folio) {',
     '\tagain = pfn;\n\tif (again == pfn) {'),
    ('I3', 'fault.c', 'failed commit leaves the entry',
     '\t\trevert_entry(c);\n', '\t\tif (false)\n\t\t\trevert_entry(c);\n'),
    ('patch-1', 'layout.c', 'end 0 is the whole file',
     'return end >> BLOCK_SHIFT;',
     'return (end ? end : UINT64_MAX) >> BLOCK_SHIFT;'),
    ('patch-2', 'layout.c', 'pinned and unmapped is not busy',
     'if (folio && dax_folio_is_busy(folio)) {',
     'if (folio && folio_mapcount(folio) && dax_folio_is_busy(folio)) {'),
    ('patch-3', 'layout.c', 'scan skips locked entries',
     '\t\t/* At this index, and not at the next one (B3). */\n'
     '\t\tentry = dax_wait_entry_unlocked(&xas, entry);\n'
     '\t\tif (!entry)\n',
     '\t\tif (dax_is_locked(entry))\n'),
    ('sync-pfn', 'fault.c', 'another block is mapped after the fsync',
     'dax_is_real_entry(entry) &&\n\t       dax_to_pfn(entry) == c->pfn;',
     'dax_is_real_entry(entry);'),
    ('wb-protect', 'entry.c', 'writeback does not write-protect',
     'ret = mapping->mapper->wrprotect(mapping, index,\n'
     '\t\t\t\t\t\t dax_entry_pages(entry));', 'ret = 0;'),
    ('wb-flush', 'entry.c', 'writeback does not flush',
     '\tpmem_flush(pm, dax_to_pfn(entry) << BLOCK_SHIFT, '
     'dax_entry_size(entry));\n', ''),
    ('wb-early', 'writeback.c', 'DIRTY is cleared before the flush',
     '\txas_clear_mark(xas, DAX_MARK_TOWRITE);\n\txas_reset(xas);',
     '\txas_clear_mark(xas, DAX_MARK_TOWRITE);\n'
     '\txas_clear_mark(xas, DAX_MARK_DIRTY);\n\txas_reset(xas);'),
    ('edges', 'rw.c', 'edges of a small write are not copied',
     '\treturn fill_edge(it, end, round_up(end) - end);', '\treturn 0;'),
    ('list-marks', 'xarray.c', 'marks stay where entries make way',
     'for (unsigned int i = 0; i < 1 + XA_MAX_MARKS; i++) {',
     'for (unsigned int i = 0; i < 1; i++) {'),
    ('list-spread', 'xarray.c', 'marks are lost where a list becomes nodes',
     'if (list->marks[m] >> i & 1)', 'if (false)'),
    ('list-walk', 'xarray.c', 'a walk from between two entries misses one',
     ': xas->offset - XA_SLOTS;', ': xas->offset - XA_SLOTS + 1;'),
    ('list-place', 'xarray.c', 'entries of a full upper half go astray',
     '\treturn at - 1;', '\treturn at;'),
    ('list-leak', 'xarray.c', 'memory is lost where there is too little',
     'spare(xas, to_node(slot(node, i)));', 'to_node(slot(node, i));'),
    ('list-nomem', 'xarray.c', 'a store gives up before it has enough',
     '#define MAX_NEW (2 * 11u + LIST_MAX + 11u)', '#define MAX_NEW 40u'),
]


def pkg_config(*args):
    out = subprocess.run(['pkg-config', *args], check=True,
                         capture_output=True, text=True).stdout
    return out.split()


class Tree:
    """A copy of the sources with objects and test programs beside it."""

    def __init__(self, root, work):
        self.work = work
        self.suites = SUITES + sum(ONLY.values(), [])
        for part in ('dax', 'tests/dax'):
            shutil.copytree(root / part, work / part)
        (work / 'obj').mkdir()
        self.cc = os.environ.get('CC', 'cc').split()
        self.cflags = ['-O1', '-g', '-std=gnu17', '-w', '-D_GNU_SOURCE',
                       '-D_FILE_OFFSET_BITS=64', '-DLOCK_CHECKS=1',
                       '-DLOCK_PERTURB=1', '-fno-strict-aliasing',
                       '-I', str(work)]
        self.libs = pkg_config('--libs', 'libpmem2', 'libisal', 'criterion')

    def compile(self, source):
        obj = self.work / 'obj' / (source.replace('/', '_') + '.o')
        subprocess.run([*self.cc, *self.cflags, '-c',
                        str(self.work / source), '-o', str(obj)], check=True)

    def sources(self):
        dax = sorted((self.work / 'dax').glob('*.c'))
        support = sorted((self.work / 'tests/dax/support').glob('*.c'))
        return [str(p.relative_to(self.work)) for p in dax + support]

    def build(self):
        tests = [f'tests/dax/test_{s}.c' for s in self.suites]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(self.compile, self.sources() + tests))
        self.link()

    def link(self):
        objs = [str(self.work / 'obj' / (s.replace('/', '_') + '.o'))
                for s in self.sources()]
        for suite in self.suites:
            test = self.work / 'obj' / f'tests_dax_test_{suite}.c.o'
            subprocess.run([*self.cc, str(test), *objs, *self.libs,
                            '-lpthread', '-o', str(self.work / suite)],
                           check=True)

    def run(self, suite):
        """How many tests of a suite failed."""
        env = dict(os.environ, FOLIOFS_STEPS=MODEL_STEPS)
        env.pop('CRITERION_OUTPUTS', None)
        try:
            out = subprocess.run([str(self.work / suite)], env=env,
                                 timeout=SUITE_TIMEOUT, capture_output=True,
                                 text=True, errors='replace')
        except subprocess.TimeoutExpired:
            return 1
        m = re.search(r'Failing: (\d+)', out.stderr)
        return int(m.group(1)) if m else 1


def mutate(tree, mutation):
    """Apply one mutation, run everything, take it back."""
    name, file, what, old, new = mutation
    path = tree.work / 'dax' / file
    text = path.read_text()
    if text.count(old) != 1:
        return f'text found {text.count(old)} times', {}
    path.write_text(text.replace(old, new))
    try:
        tree.compile(f'dax/{file}')
        tree.link()
        noticed = {s: tree.run(s) for s in ONLY.get(file, SUITES)}
    finally:
        path.write_text(text)
        tree.compile(f'dax/{file}')
    return what, {s: n for s, n in noticed.items() if n}


def main():
    root = pathlib.Path(sys.argv[1])
    wanted = set(sys.argv[2:])
    chosen = [m for m in MUTATIONS if not wanted or m[0] in wanted]
    bad = 0
    with tempfile.TemporaryDirectory(prefix='dax-mutate-') as work:
        tree = Tree(root, pathlib.Path(work))
        tree.build()
        clean = {s: tree.run(s) for s in tree.suites}
        if any(clean.values()):
            print(f'not ok - the tests fail without any mutation: {clean}')
            return 1
        print(f'1..{len(chosen)}', flush=True)
        for mutation in chosen:
            what, noticed = mutate(tree, mutation)
            total = sum(noticed.values())
            ok = 'ok' if total else 'not ok'
            bad += not total
            where = ', '.join(f'{s} {n}' for s, n in noticed.items())
            print(f'{ok} - {mutation[0]}: {what}: noticed by {total} '
                  f'({where})', flush=True)
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
