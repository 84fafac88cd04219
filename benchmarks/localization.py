"""Localization: a training step against the bare forward and backward of network and teacher, and memory by size

    python benchmarks/localization.py [--backbone resnet50] [--pixels 256,512] [--batch 8] [--rounds 5] [--device cpu]
    python benchmarks/localization.py --memory [--pixels 128,192,256] [--batches 2,4,8]
    python benchmarks/localization.py --tiny

A step of dynamic sharpening as `learning/localization` runs it (loader, augmentation, teacher, sharpening, losses,
Adam) against the same network's forward and backward on images that lie ready on the device, plus a forward of the weak
images without gradient. The two take turns, a round each; reported are the medians in processor seconds (on CUDA in
wall seconds) and the median of the ratio within a round. Half of the images are weak.

`--memory` measures memory alone and leaves the times of the file as they are. What a step takes at most is counted from
the allocations of torch, after everything was imported and built, so no start-up hides it: on a CPU from the events of
torch's profiler, on CUDA from the peak of the allocator. Over sizes and batches it is a straight line in megapixels
times images; its slope, and what stays between steps (weights and Adam's two moments), say what a larger size or batch
takes, and so does the slope between the two largest steps, which is steeper. Counted in float32, without the workspaces
of cuDNN; nothing was run at the extrapolated size.

Results go to benchmarks/localization.json; what `--tiny` measures shows that the script runs, and nothing else.
"""
import argparse
import json
import os
import platform
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


def learner(args, pixels, network=None, method='dynamic_sharpening'):
    "A learner of one method on random images, half of them weak; None: of a new network"
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
    one = Localization(network=spec, method=method, batch_size=args.batch, device=args.device)
    learn, teach, _ = map_learner(one, network or Localizer(spec), Data(), torch.device(args.device))
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


def allocated(step, device):
    "MiB that a step has allocated at most, above what stood before it"
    import torch
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before)/2**20
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen: step()
    events = [o for o in seen.profiler.kineto_results.events() if o.name() == '[memory]']
    now = most = 0
    for o in sorted(events, key=lambda o: o.start_ns()):
        now += o.nbytes()
        most = max(most, now)
    return most/2**20


def memory(args, sizes, batches):
    "What a step takes by size and batch, the line through it, and where it leads"
    import argparse

    import numpy as np
    from fastai.callback.progress import ProgressCallback  # noqa: F401 - patches no_bar into Learner
    def one_step(batch): return argparse.Namespace(**vars(args) | dict(batch=batch, steps=1))
    learn, teach = learner(one_step(batches[0]), min(sizes))
    our_steps(learn, teach, one_step(batches[0])) # from here on Adam has its moments
    network, adam, rows = learn.model, learn.opt, []
    for pixels in sizes:
        for batch in batches:
            own = one_step(batch)
            learn, teach = learner(own, pixels, network)
            learn.opt = adam
            most = allocated(lambda learn=learn, teach=teach, own=own: our_steps(learn, teach, own), args.device)
            rows.append(dict(pixels=pixels, batch=batch, step_mib=round(most, 1)))
            print(rows[-1], file=sys.stderr, flush=True)
    # weights, two moments of Adam, and gradients where they are kept between steps
    kept = sum(o.numel()*(3 + (o.grad is not None)) for o in network.parameters())*4/2**20
    x = np.array([o['pixels']**2*o['batch']/1e6 for o in rows])
    y = np.array([o['step_mib'] for o in rows])
    slope, base = np.polyfit(x, y, 1)
    worst = float(np.abs(slope*x + base - y).max()/y.max())
    # the slope rises a little with size: between the two largest steps it is the better guess for larger ones
    far, near = np.argsort(-x, kind='stable')[:2]
    steep = (y[far] - y[near])/(x[far] - x[near])
    at_1024 = (kept + base + slope*1024**2*32/1e6)/1024
    steep_1024 = (kept + y[far] + steep*(1024**2*32/1e6 - x[far]))/1024
    return dict(steps=rows, kept_mib=round(kept, 1), base_mib=round(base, 1),
                mib_a_megapixel_and_image=round(slope, 1), largest_residual_of_highest=round(worst, 4),
                largest_two_mib_a_megapixel_and_image=round(steep, 1), precision='float32',
                gib_at_1024_batch_32=round(at_1024, 1), gib_at_1024_batch_32_by_largest_two=round(steep_1024, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--backbone', default='resnet50')
    parser.add_argument('--pixels', help='sides, such as 256,512')
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--channels', type=int, default=256)
    parser.add_argument('--steps', type=int, default=4)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--tiny', action='store_true', help='small, to see that it runs')
    parser.add_argument('--memory', action='store_true', help='memory alone')
    parser.add_argument('--batches', default='2,4,8', help='of --memory')
    args = parser.parse_args()
    if args.tiny: args.backbone, args.batch, args.channels, args.rounds = 'densenet51', 8, 16, 2
    import torch
    torch.set_num_threads(args.threads)
    sizes = [int(o) for o in (args.pixels or ('64,96' if args.tiny else '256,512')).split(',')]
    if args.memory and not args.tiny:
        sizes = [int(o) for o in (args.pixels or '128,192,256').split(',')]
        found = json.loads((HERE/'localization.json').read_text())
        about = dict(backbone=args.backbone, channels=args.channels, device=args.device, machine=machine(args.device))
        found['memory'] = memory(args, sizes, [int(o) for o in args.batches.split(',')]) | about
    else:
        found = dict(backbone=args.backbone, channels=args.channels, device=args.device, threads=args.threads,
                     tiny=args.tiny, steps=[race(args, o) for o in sizes], machine=machine(args.device))
        found['memory'] = memory(args, sizes if args.tiny else [128, 192, 256], [2, 4] if args.tiny else [2, 4, 8])
    print(json.dumps(found, indent=1))
    (HERE/'localization.json').write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__': main()
