"""Localization: a training step against the bare forward and backward of network and teacher, and memory by size

    python benchmarks/localization.py [--backbone resnet50] [--pixels 256,512] [--batch 8] [--rounds 5] [--device cpu]
    python benchmarks/localization.py --tiny

A step of dynamic sharpening as `learning/localization` runs it (loader, augmentation, teacher, sharpening, losses,
Adam) against the same network's forward and backward on images that lie ready on the device, plus a forward of the weak
images without gradient. The two take turns, a round each; reported are the medians in processor seconds (on CUDA in
wall seconds) and the median of the ratio within a round. Half of the images are weak.

`memory` is the peak of a step by size of the image: allocated memory on CUDA, the process's peak on a CPU, each size in
a process of its own; the slope in MiB a megapixel and image says what a larger size or batch would take.

Results go to benchmarks/localization.json; what `--tiny` measures shows that the script runs, and nothing else.
"""
import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent


def machine(device):
    "What it was measured on"
    import torch
    gpu = dict(gpu=torch.cuda.get_device_name()) if device == 'cuda' else {}
    return dict(system=platform.system(), processor=platform.machine(), cores=os.cpu_count(),
                load=[round(o, 1) for o in os.getloadavg()], python=platform.python_version(), **gpu,
                **{o: metadata.version(o) for o in ('torch', 'torchvision', 'timm', 'fastai')})


def learner(args, pixels):
    "A learner of dynamic sharpening on random images, half of them weak"
    import numpy as np
    import torch

    from radinet_nb.data.loaders import Batches
    from radinet_nb.learning.localization.batches import MapRows
    from radinet_nb.learning.localization.localizer import Localizer, LocalizerSpec
    from radinet_nb.learning.localization.targets import padded_boxes
    from radinet_nb.learning.localization.training import Localization, map_learner
    torch.manual_seed(0)
    n = args.batch*args.steps
    images = np.random.default_rng(0).integers(0, 255, (n, pixels, pixels), dtype=np.uint8)
    box = np.array([[pixels/4, pixels/4, pixels/3, pixels/3]])
    role = torch.tensor([0, 2, 1, 2]*(n//4 + 1))[:n]
    rows = MapRows(images, np.arange(n), (role > 0).long(), role,
                   padded_boxes([box if o == 1 else None for o in role.tolist()]), role != 2)

    class Data:
        "What a study table would give"
        def shown(self, split): return rows
        def cells(self, split): return [None]*n
        def hidden(self): return padded_boxes([None]*n)
    spec = LocalizerSpec(args.backbone, channels=args.channels)
    one = Localization(network=spec, batch_size=args.batch, device=args.device)
    learn, teach, _ = map_learner(one, Localizer(spec), Data(), torch.device(args.device))
    assert isinstance(teach.batches, Batches)
    return learn, teach


def clock(device):
    "Processor seconds on a CPU, wall seconds after everything has ended on CUDA"
    if device == 'cpu': return time.process_time()
    import torch
    torch.cuda.synchronize()
    return time.perf_counter()


def our_steps(learn, teach, args):
    "Seconds of the steps of an epoch, one after the other, without validation"
    from fastai.callback.core import Callback, CancelFitException

    class Steps(Callback):
        "The teacher's pass before an epoch and the validation are no step"
        order = 100

        def before_train(self): self.learn.began = clock(args.device)

        def after_train(self):
            self.learn.took = (clock(args.device) - self.began)/args.steps
            raise CancelFitException()
    teach.before_epoch = lambda: teach.method.begin(0, 1, .4)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 4e-5, cbs=[Steps()])
    return learn.took


def bare_steps(network, args, pixels):
    "Seconds of a forward and backward on tensors that lie ready, and a forward of the weak half"
    import torch
    x = torch.randn(args.batch, 3, pixels, pixels, device=args.device).to(memory_format=torch.channels_last)
    weak, half = x[:args.batch//2].clone(memory_format=torch.channels_last), args.device == 'cuda'
    network.train()
    began = clock(args.device)
    for _ in range(args.steps):
        with torch.autocast(args.device, torch.bfloat16, enabled=half):
            with torch.no_grad():
                network.eval()
                network(weak)
                network.train()
            network(x).sum().backward()
        network.zero_grad()
    return (clock(args.device) - began)/args.steps


def race(args, pixels):
    "Both in turns"
    from fastai.callback.progress import ProgressCallback  # noqa: F401 - patches no_bar into Learner
    learn, teach = learner(args, pixels)
    for _ in range(2): our_steps(learn, teach, args), bare_steps(learn.model, args, pixels)
    ours, bare = [], []
    for i in range(args.rounds):
        turns = (ours, bare) if i % 2 == 0 else (bare, ours)
        for o in turns:
            o.append(our_steps(learn, teach, args) if o is ours else bare_steps(learn.model, args, pixels))
    ratios = [a/b for a, b in zip(ours, bare, strict=True)]
    return dict(pixels=pixels, batch=args.batch, step_s=round(median(ours), 4), bare_s=round(median(bare), 4),
                ratio=round(median(ratios), 3), ratios=[round(o, 3) for o in ratios])


def peak(args, pixels):
    "MiB that a step takes at most, in this process"
    import torch
    from fastai.callback.progress import ProgressCallback  # noqa: F401 - patches no_bar into Learner
    learn, teach = learner(args, pixels)
    our_steps(learn, teach, args)
    if args.device == 'cuda': return torch.cuda.max_memory_allocated()/2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**(20 if sys.platform == 'darwin' else 10)


def memory(args, sizes):
    "The peak by size, each in a process of its own, and the slope"
    found = {}
    for pixels in sizes:
        command = [sys.executable, __file__, '--peak', str(pixels), '--backbone', args.backbone, '--batch',
                   str(args.batch), '--channels', str(args.channels), '--device', args.device, '--steps', '1',
                   '--threads', str(args.threads)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        found[pixels] = round(float(answer), 1)
    low, high = min(sizes), max(sizes)
    slope = (found[high] - found[low])/((high**2 - low**2)*args.batch/1e6) if high > low else None
    rises = slope is not None and slope > 0 and not args.tiny # a tiny step hides below what the imports took
    at_1024 = None if not rises else round((found[high] + slope*(1024**2*32 - high**2*args.batch)/1e6)/1024, 1)
    slope = round(slope, 1) if rises else None
    return dict(peak_mib=found, mib_a_megapixel_and_image=slope, gib_at_1024_batch_32=at_1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--backbone', default='resnet50')
    parser.add_argument('--pixels', default='256,512')
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--channels', type=int, default=256)
    parser.add_argument('--steps', type=int, default=4)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--tiny', action='store_true', help='small, to see that it runs')
    parser.add_argument('--peak', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny: args.backbone, args.pixels, args.batch, args.channels, args.rounds = 'densenet51', '64,96', 8, 16, 2
    import torch
    torch.set_num_threads(args.threads)
    if args.peak: return print(peak(args, args.peak))
    sizes = [int(o) for o in args.pixels.split(',')]
    found = dict(backbone=args.backbone, channels=args.channels, device=args.device, threads=args.threads,
                 tiny=args.tiny, steps=[race(args, o) for o in sizes], memory=memory(args, sizes),
                 machine=machine(args.device))
    print(json.dumps(found, indent=1))
    (HERE/'localization.json').write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__': main()
