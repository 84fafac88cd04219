"""A cache of a million images: how long it takes to open, to find rows in, to order an epoch of, and to read a batch

    python benchmarks/loader_scale.py [--rows 1000000] [--pixels 32] [--shard-rows 65536] [--batches 200]

The shards are written as `build_shards` would, but their pixels are sparse files: no image is decoded, and a batch
reads zeros. The cache in one file, of the same rows, stands beside it. Every step runs in a process of its own that has
imported what it needs; its processor seconds are given, because where others use the machine wall time measures them.
How an order mixes is measured on a table sorted by class, the worst case, beside a global shuffle. Results go to
benchmarks/loader_scale.json.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def path_of(row): return f'/collection/patient{row//4:07}/study{row % 4}/image{row:09}.png'


def write_sparse(folder, begin, end, pixels):
    "An image cache of rows without content: its arrays take no room on the disk"
    import numpy as np
    folder.mkdir(parents=True)
    shape = (end - begin, pixels, pixels)
    for name, size in (('images', shape), ('thumbs', (end - begin, 1, 2, 32, 33))):
        np.lib.format.open_memmap(folder/f'{name}.npy', mode='w+', dtype=np.uint8, shape=size).flush()
    paths = [path_of(row) for row in range(begin, end)]
    about = dict(shape=list(shape), stamps=[[[5, 7]]]*len(paths), asked=paths, paths=paths, unreadable=[])
    (folder/'cache.json').write_text(json.dumps(about))


def make(home, rows, pixels, shard_rows):
    "The cache in shards, and the one in one file"
    from radinet_nb.data.shards import write_index
    for number, begin in enumerate(range(0, rows, shard_rows)):
        write_sparse(home/'shards'/f'{number:05}', begin, min(begin + shard_rows, rows), pixels)
    write_index(home/'shards', 'sparse')
    write_sparse(home/'one', 0, rows, pixels)


def measured(home, rows, what, batches):
    "One step in this process: processor seconds, and what is to be told beside"
    import resource
    import time

    import numpy as np

    from radinet_nb.data.cache import ImageCache
    from radinet_nb.data.loaders import Batches, CacheLoader
    from radinet_nb.data.orders import BlockOrder, mixing
    kind, _, step = what.partition(' ')
    folder = home/('one' if kind == 'one' else 'shards')
    every = [path_of(row) for row in range(0, rows, 10)] if step == 'rows' else []
    def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    before, told = peak(), {}
    began = time.process_time()
    if step != 'mixing': cache = ImageCache(folder)
    if step == 'open': told['images'] = len(cache)
    if step == 'rows':
        assert cache.rows_of(every).tolist() == list(range(0, rows, 10))
        told['paths'] = len(every)
    if step == 'first batch':
        loader = CacheLoader(cache.images, np.arange(rows), np.zeros(rows, np.int64), Batches(64), True)
        next(iter(loader))
    if step == 'batches':
        loader = iter(CacheLoader(cache.images, np.arange(rows), np.zeros(rows, np.int64), Batches(64), True))
        next(loader)
        began = time.process_time()
        for _ in range(batches): next(loader)
        told['images'] = 64*batches
    if step == 'order':
        from collections import deque
        deque(BlockOrder(np.arange(rows)), maxlen=0)
    seconds = dict(processor_seconds=round(time.process_time() - began, 3))
    if step == 'mixing':
        by_class = np.arange(rows) < rows*3//10
        orders = dict(blocks=BlockOrder(np.arange(rows)), globally=np.random.default_rng(0).permutation(rows))
        told = {f'batches of {b}': {name: round(mixing(order, by_class, b), 3) for name, order in orders.items()}
                for b in (16, 64)}
        seconds = {}
    else: told['memory_mib'] = round(peak() - before, 1)
    print(json.dumps(seconds | told))


STEPS = ('one open', 'shards open', 'shards rows', 'shards first batch', 'one first batch', 'shards batches',
         'one batches', 'shards order', 'shards mixing')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', type=int, default=1_000_000)
    parser.add_argument('--pixels', type=int, default=32)
    parser.add_argument('--shard-rows', type=int, default=65_536)
    parser.add_argument('--batches', type=int, default=200)
    parser.add_argument('--out', type=Path, default=HERE/'loader_scale.json')
    parser.add_argument('--step', nargs=2, help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.step: measured(Path(o.step[0]), o.rows, o.step[1], o.batches); return
    res = dict(what='a cache of sparse images, in shards and in one file; processor seconds of each step', rows=o.rows,
               pixels=o.pixels, shard_rows=o.shard_rows, cores=os.cpu_count())
    with tempfile.TemporaryDirectory() as home:
        make(Path(home), o.rows, o.pixels, o.shard_rows)
        for step in STEPS:
            command = [sys.executable, __file__, '--rows', str(o.rows), '--batches', str(o.batches), '--step', home,
                       step]
            found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            res[step] = json.loads(found.splitlines()[-1])
            print(step, res[step], flush=True)
    o.out.write_text(json.dumps(res, indent=1) + '\n')


if __name__ == '__main__': main()
