"""Features streamed from an image cache on disk, against the bare forward pass on tensors that are in memory already

    python benchmarks/features.py [--images 10000] [--pixels 224] [--backbone mobilenet_v2] [--rounds 3] [--tiny]
                                  [--out benchmarks/features.json]

Contestants, on the same images and weights, in turn, round after round; medians count:

- bare: `body(x)` over batches that lie on the device, normalized, as float32; nothing is read and nothing is kept. It
  runs over as many images as `--resident`, and its time is scaled to all
- ours: `features_of_images` from the memory-mapped cache to a file of features, with both hashes
- again: the same call once more, which finds the file

The largest memory of ours is measured in a process of its own, above what was held before it began: pixels and features
are mapped from disk, and what is left of them in memory is the system's to take back, so the peak counts what is
resident. On a machine that others use, compare processor seconds: wall time there measures the others.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent


def made_up_cache(folder, images, pixels):
    "An image cache of random smooth images, written a few at a time"
    import numpy as np

    from radinet_nb.data.cache import ImageCache
    folder.mkdir()
    rng = np.random.default_rng(0)
    out = np.lib.format.open_memmap(folder/'images.npy', 'w+', np.uint8, (images, pixels, pixels))
    for i in range(0, images, 256): out[i:i + 256] = rng.integers(0, 256, out[i:i + 256].shape, dtype=np.uint8)
    out.flush()
    about = dict(shape=list(out.shape), paths=[f'{i}.png' for i in range(images)], unreadable=[])
    (folder/'cache.json').write_text(json.dumps(about))
    return ImageCache(folder)


def clocked(device, f):
    "Seconds of wall and of processor, and what `f` gave"
    import torch

    def wait():
        if device == 'cuda': torch.cuda.synchronize()
    wait()
    wall, busy = time.perf_counter(), time.process_time()
    res = f()
    wait()
    return dict(wall=time.perf_counter() - wall, processor=time.process_time() - busy), res


def memory(args):
    "MiB that streaming held at most above what was there before, in a process of its own"
    import torch

    from radinet_nb.data.cache import ImageCache
    from radinet_nb.learning.features import feature_network, features_of_images
    torch.set_num_threads(args.threads)
    cache, net = ImageCache(args.memory), feature_network(args.backbone)
    with tempfile.TemporaryDirectory() as folder:
        features_of_images(net, cache, cache.paths[:args.batch_size], folder, args.batch_size, args.device)

        def resident(key): return int(next(o for o in open('/proc/self/status') if o.startswith(key)).split()[1])
        before = resident('RssAnon')
        peak = before
        import threading
        over = threading.Event()

        def watch():
            nonlocal peak
            while not over.wait(.02): peak = max(peak, resident('RssAnon'))
        thread = threading.Thread(target=watch)
        thread.start()
        features_of_images(net, cache, cache.paths, folder, args.batch_size, args.device)
        over.set()
        thread.join()
    print(round((peak - before)/1024, 1))


def compete(args):
    import torch

    from radinet_nb.learning.features import feature_network, features_of_images
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        cache = made_up_cache(folder/'cache', args.images, args.pixels)
        net = feature_network(args.backbone).to(args.device).to(memory_format=torch.channels_last)
        n = min(args.resident, args.images)
        batches = [net.normalize(torch.from_numpy(cache.images[i:min(i + args.batch_size, n)].copy()).to(args.device))
                   for i in range(0, n, args.batch_size)]

        @torch.inference_mode()
        def bare():
            for x in batches: net.body(x).flatten(1)
        rounds = []
        for i in range(-1, args.rounds):  # the first warms up
            plain = clocked(args.device, bare)[0]
            found = dict(bare={k: v*args.images/n for k, v in plain.items()})
            kept = folder/f'kept{i}'

            def ours(kept=kept):
                return features_of_images(net, cache, cache.paths, kept, args.batch_size, args.device)
            for who in 'ours', 'again': found[who], features = clocked(args.device, ours)
            if i >= 0: rounds.append(found)
            print({k: {a: round(b, 2) for a, b in v.items()} for k, v in found.items()}, flush=True)
        command = [sys.executable, __file__, '--memory', str(cache.folder), '--backbone', args.backbone, '--batch_size',
                   str(args.batch_size), '--device', args.device, '--threads', str(args.threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        size = cache.images.nbytes/2**20
        return rounds, dict(mib_of_pixels=round(size, 1), mib_of_features=round(features.values.nbytes/2**20, 1),
                            mib_held_above_start=float(done.stdout))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in dict(images=10_000, pixels=224, backbone='mobilenet_v2', rounds=3, batch_size=64,
                              resident=1024, device='', threads=1, memory='', out=str(HERE/'features.json')).items():
        p.add_argument(f'--{name}', type=type(default), default=default)
    p.add_argument('--tiny', action='store_true', help='small numbers, to see that it runs')
    args = p.parse_args()
    import torch
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if args.memory: return memory(args)
    if args.tiny: args.images, args.pixels, args.rounds, args.resident = min(args.images, 1200), 64, 3, 600
    load = os.getloadavg()[0]
    rounds, held = compete(args)
    median = {who: {k: round(statistics.median(o[who][k] for o in rounds), 2) for k in ('wall', 'processor')}
              for who in ('bare', 'ours', 'again')}
    ratios = {k: round(statistics.median(o['ours'][k]/o['bare'][k] for o in rounds), 3) for k in ('wall', 'processor')}
    from radinet_nb.data.runs import device_name, versions
    res = dict(what='seconds for the features of all images: bare forward pass on resident tensors, ours, ours again',
               images=args.images, pixels=args.pixels, backbone=args.backbone, batch_size=args.batch_size,
               rounds=len(rounds), medians=median, ours_to_bare=ratios, memory=held, load_before=round(load, 2),
               device=device_name(), threads=args.threads, machine=platform.machine(), cores=os.cpu_count(),
               versions=versions())
    Path(args.out).write_text(json.dumps(res, indent=1) + '\n')
    print(json.dumps(dict(medians=median, ours_to_bare=ratios, memory=held)))


if __name__ == '__main__': main()
