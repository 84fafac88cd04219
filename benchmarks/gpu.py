"""One script for a GPU: what training costs there, what the memory check foretells, and that both devices agree

    python benchmarks/gpu.py [--tiny] [--rounds 5] [--parts step,memory,stage]

- `step`: images a second of DenseNet-169 at 320 px in bfloat16, channels last, batches of 32: the bare step on resident
  tensors, our learner with its cache and augmentation, and plain fastai over JPEG files; they take turns, ABC CBA.
  Reported are medians of the rounds and of the ratios within a round, and the share of the card's peak: operations of
  the step (`torch.utils.flop_counter`) against a matrix product of bfloat16 measured beside it.
- `memory`: the most that a step takes at three batch sizes, beside what `check_batch` reckons with.
- `stage`: a stage by either schedule; its weights give the same probabilities on the CPU.
- `similarity`: the grid of 16 x 16 layers, on the card and on the CPU.
- `features`: a frozen body over a cache, against its bare forward pass on resident tensors.
- `fractals`: images of the fractal start drawn in a second.
- `localizer`: a step of dynamic sharpening at 1024 px against the bare passes of network and teacher, and its memory.
- `methods`: two epochs of each way to teach a localizer: seconds an epoch, and whether the weights stay finite.
- `detector`: images a second of a detector that learns from windows, and whether its losses are finite.

It needs what such a machine has (torch, torchvision, timm, scikit-learn, pandas) and the small wheels of fastai (with
fastcore, fastprogress, fastdownload, fasttransform, plum-dispatch), pydicom, pandera and safetensors. `--tiny` runs all
of it on a CPU in seconds, in the tests. Results go to benchmarks/gpu.json.
"""
import argparse
import json
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from statistics import median

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import localization  # noqa: E402
import similarity  # noqa: E402
import training  # noqa: E402

FULL = dict(network='densenet169', pixels=320, batch=32, images=2048, batches=(16, 64, 128), samples=5000,
            matrix=8192, steps=4,
            map_network='resnet50', map_pixels=1024, method_pixels=256, channels=256, methods=100)
TINY = dict(network='mobilenet_v2', pixels=32, batch=4, images=24, batches=(2, 4), samples=0, matrix=256, steps=1,
            map_network='densenet51', map_pixels=32, method_pixels=64, channels=8, methods=2)


def seconds(work, device, times=1):
    "Seconds that some work takes on a device"
    if device.type == 'cuda': torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times): work()
    if device.type == 'cuda': torch.cuda.synchronize()
    return (time.perf_counter() - began)/times


def half(device):
    "The arithmetic of the stage on this device"
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == 'cuda')


def bare_step(args, device):
    "A training step on resident tensors, and its operations"
    from torch.utils.flop_counter import FlopCounterMode

    from radinet_nb.learning.networks import Network
    network = Network(args.network).to(device, memory_format=torch.channels_last).train()
    adam = torch.optim.Adam(network.parameters(), 1e-4)
    x = torch.randn(args.batch, 3, args.pixels, args.pixels, device=device).to(memory_format=torch.channels_last)
    y = torch.arange(args.batch, device=device) % 2

    def step():
        with half(device): loss = torch.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        adam.step()
        adam.zero_grad()
    with FlopCounterMode(display=False) as counter: step()
    return step, counter.get_total_flops()


def peak_rate(args, device):
    "Operations a second of a matrix product in bfloat16"
    a, b = (torch.randn(args.matrix, args.matrix, device=device, dtype=torch.bfloat16) for _ in range(2))
    a@b
    return 2*args.matrix**3/seconds(lambda: a@b, device, 10)


def step(args, device):
    "The bare step, our learner and plain fastai, taking turns"
    training.SIZES[args.network] = dict(batch=args.batch, images=args.images)
    options = argparse.Namespace(pixels=args.pixels, workers=args.workers, device=str(device))
    with tempfile.TemporaryDirectory() as folder:
        table, real = training.pictures(Path(folder), args.images)
        ours, _ = training.our_learner(args.network, table, options)
        theirs, _ = training.fastai_learner(args.network, table, options)
        if device.type == 'cuda': theirs.to_bf16()
        bare, flops = bare_step(args, device)
        n = args.images*3//4//args.batch
        contestants = dict(bare=lambda: n*seconds(bare, device, n), ours=lambda: training.timed(ours)[0],
                           fastai=lambda: training.timed(theirs)[0])
        times = {k: [] for k in contestants}
        for i in range(-1, args.rounds): # the first round warms up
            for k in list(contestants)[::1 if i % 2 else -1]:
                took = contestants[k]()
                if i >= 0: times[k].append(took)
    rate = {k: n*args.batch/median(v) for k, v in times.items()}
    done, peak = flops*rate['ours']/args.batch, peak_rate(args, device)
    pairs = {k: zip(times['ours'], times[k], strict=True) for k in ('bare', 'fastai')}
    ratios = {f'ours_to_{k}': [b/a for a, b in v] for k, v in pairs.items()}
    return dict(images_a_second={k: round(v, 1) for k, v in rate.items()}, rounds=args.rounds, images=n*args.batch,
                ratios={k: dict(median=round(median(v), 3), rounds=np.round(v, 3).tolist()) for k, v in ratios.items()},
                teraflops_a_step=round(flops/1e12, 3), teraflops_a_second=round(done/1e12, 2),
                matrix_product=round(peak/1e12, 1), share_of_matrix_product=round(done/peak, 3),
                pictures='FracAtlas' if real else 'drawn')


def memory(args, device):
    "MiB that a step takes by batch size, measured and reckoned"
    from radinet_nb.learning.memory import kept_by_autograd
    from radinet_nb.learning.networks import Network
    network = Network(args.network)
    each = kept_by_autograd(network, (args.pixels, args.pixels))*(0.6 if device.type == 'cuda' else 1.1)
    fixed, rows = 4*sum(p.numel()*4 for p in network.parameters()), []
    for batch in args.batches:
        work, _ = bare_step(argparse.Namespace(**vars(args) | dict(batch=batch)), device)
        if device.type == 'cuda': torch.cuda.reset_peak_memory_stats()
        work()
        taken = torch.cuda.max_memory_allocated() if device.type == 'cuda' else None
        rows.append(dict(batch=batch, reckoned_mib=round((fixed + batch*each)/2**20),
                         measured_mib=taken and round(taken/2**20)))
    return rows


def stage(args, device):
    "Seconds of a stage by either schedule, and how far its probabilities on the CPU are from those on the device"
    from radinet_nb.data.cache import build_cache
    from radinet_nb.data.loaders import eval_loader
    from radinet_nb.data.studies import split_studies, study_table
    from radinet_nb.learning.networks import NetworkSpec
    from radinet_nb.learning.prediction import network_of, predict
    from radinet_nb.learning.schedules import paper_schedule, staged_schedule
    from radinet_nb.learning.stages import Stage
    from radinet_nb.learning.tasks import FRACTURE
    from radinet_nb.learning.transfer import train_stage
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        table, _ = training.pictures(Path(folder), args.images//2)
        rows = split_studies(study_table(table[['path', 'label', 'patient']]), shares=(.6, .2, .2), seed=0)
        cache = build_cache(rows, Path(folder)/'cache', args.pixels, jobs=max(args.workers, 1))
        for name, schedule in (('paper', paper_schedule(1, 1)), ('staged', staged_schedule(1, n_blocks=args.steps))):
            began = time.perf_counter()
            made = Stage(name, network=NetworkSpec(args.network), schedule=tuple(schedule), batch_size=args.batch)
            run = train_stage(made, rows, cache, Path(folder)/name)
            took, there = time.perf_counter() - began, run.predictions.query('split == "test"')
            network, test = network_of(run), rows[rows.split == 'test']
            scale = dict(mean=network.spec.mean, std=network.spec.std)
            here = predict(network, eval_loader(cache, rows, FRACTURE, 'test', 4*args.batch, **scale), test,
                           ['none', 'fracture'], name)
            off = np.abs(here.probability.to_numpy() - there.probability.to_numpy()).max()
            found[name] = dict(seconds=round(took, 1), epochs=len(run.history), device=run.record['device'],
                               finite=bool(np.isfinite(run.history.valid_loss).all()), cpu_off_by_at_most=float(off))
    return found


def similarity_grid(args, device):
    "Seconds of the grid, first on the CPU"
    if not args.samples: return dict(left_out='tiny')
    a, b = similarity.networks(args.samples)
    found = {str(o): seconds(lambda o=o: similarity.ours(a, b, str(o)), device) for o in (torch.device('cpu'), device)}
    off = np.abs(similarity.ours(a, b, 'cpu') - similarity.ours(a, b, str(device))).max()
    return dict(seconds={k: round(v, 2) for k, v in found.items()}, differ_by_at_most=float(off))


def features(args, device):
    "Images a second of a frozen body over a cache, and of its bare forward pass"
    from radinet_nb.learning.frozen import loader_features
    with tempfile.TemporaryDirectory() as folder:
        table, _ = training.pictures(Path(folder), args.images)
        options = argparse.Namespace(pixels=args.pixels, workers=0, device=str(device))
        training.SIZES[args.network] = dict(batch=4*args.batch, images=args.images)
        learn, _ = training.our_learner(args.network, table, options)
        network, loader = learn.model.to(device, memory_format=torch.channels_last).eval(), learn.dls.train
        x = torch.randn(4*args.batch, 3, args.pixels, args.pixels, device=device).to(memory_format=torch.channels_last)
        dtype = torch.bfloat16 if device.type == 'cuda' else torch.float32

        @torch.no_grad()
        def bare():
            with half(device): network.body(x)
        times = dict(ours=[], bare=[])
        for i in range(-1, args.rounds):
            a = seconds(lambda: loader_features(network, loader, dtype), device)/len(loader.index)
            b = seconds(bare, device, 4)/len(x)
            if i >= 0: times['ours'].append(a), times['bare'].append(b)
    return dict(images_a_second={k: round(1/median(v), 1) for k, v in times.items()},
                ratio=round(median(b/a for a, b in zip(*times.values(), strict=True)), 3))


def fractals(args, device):
    "Images of the fractal start drawn in a second"
    from radinet_nb.synthetic.fractals import fractal_images
    n = 256 if device.type == 'cuda' else 4
    fractal_images(n, args.pixels, classes=8, device=device)
    took = seconds(lambda: fractal_images(n, args.pixels, classes=8, device=device), device)
    return dict(images_a_second=round(n/took, 1), pixels=args.pixels)


def map_options(args, device, batch):
    "The options of benchmarks/localization.py"
    return argparse.Namespace(backbone=args.map_network, channels=args.channels, batch=batch, steps=2,
                              rounds=args.rounds, device=device.type)


def localizer(args, device):
    "A step on large images against the bare passes, and what it takes at most"
    options = map_options(args, device, max(args.batch//4, 4))
    found = localization.race(options, args.map_pixels)
    learn, teach = localization.learner(options, args.map_pixels)
    localization.our_steps(learn, teach, options) # Adam has its moments
    most = localization.allocated(lambda: localization.our_steps(learn, teach, options), device.type)
    return found | dict(step_mib=round(most))


def methods(args, device):
    "Two epochs of each method on random images: a method that cannot run on this device is found here"
    from radinet_nb.learning.localization.names import METHODS
    found, options = {}, map_options(args, device, args.batch)
    for name in list(METHODS)[-args.methods:]:
        learn, _ = localization.learner(options, args.method_pixels, method=name)
        with learn.no_bar(), learn.no_logging():
            took = seconds(lambda learn=learn: learn.fit(2, 1e-4), device)
        finite = all(bool(o.isfinite().all()) for o in learn.model.parameters())
        found[name] = dict(seconds_an_epoch=round(took/2, 2), finite=finite)
    return found


def detector(args, device):
    "Two epochs of a detector on windows of random images"
    from radinet_nb.learning.detection.detector import Detector, DetectorSpec
    from radinet_nb.learning.detection.training import Detection, fit_detector
    from radinet_nb.learning.localization.batches import MapRows
    from radinet_nb.learning.localization.targets import padded_boxes
    n, side = args.batch*8, args.method_pixels
    images = np.random.default_rng(0).integers(0, 255, (n, side, side), dtype=np.uint8)
    label = torch.arange(n) % 2
    boxes = padded_boxes([np.array([[side/4, side/4, side/2, side/2]]) if o else None for o in label.tolist()])
    rows = MapRows(images, np.arange(n), label, torch.full((n,), -1), boxes, torch.ones(n, dtype=torch.bool))
    spec = DetectorSpec(args.map_network, channels=args.channels, window=side//8*4)
    one = Detection(network=spec, frozen=0, epochs=2, batch_size=args.batch, sound=1., device=device.type)
    began = time.perf_counter()
    history = fit_detector(one, Detector(spec), dict(train=rows, valid=rows), device)
    took = time.perf_counter() - began
    return dict(images_a_second=round(2*n/took, 1), pixels=side, window=spec.window,
                finite=bool(np.isfinite(history[['train_loss', 'valid_loss']].to_numpy()).all()))


def about(device):
    "The machine"
    found = training.machine() | dict(timm=metadata.version('timm'))
    if device.type != 'cuda': return found | dict(device='cpu')
    return found | dict(device=torch.cuda.get_device_name(), cuda=torch.version.cuda,
                        memory_gib=round(torch.cuda.mem_get_info()[1]/2**30))


def main():
    parts = dict(step=step, memory=memory, stage=stage, similarity=similarity_grid, features=features,
                 fractals=fractals, localizer=localizer, methods=methods, detector=detector)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--tiny', action='store_true', help='on the CPU, in seconds')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--workers', type=int, default=8, help='processes with which fastai reads')
    parser.add_argument('--parts', default=','.join(parts))
    parser.add_argument('--out', default=HERE/'gpu.json', type=Path)
    args = parser.parse_args()
    cuda = torch.cuda.is_available() and not args.tiny
    if not cuda and not args.tiny: sys.exit('no GPU is here: --tiny runs the script on the CPU')
    device = torch.device('cuda' if cuda else 'cpu')
    for k, v in (TINY if args.tiny else FULL).items(): setattr(args, k, v)
    if args.tiny: args.rounds, args.workers = 1, 0
    res = dict(about(device), network=args.network, pixels=args.pixels, batch=args.batch)
    for name in args.parts.split(','):
        began = time.perf_counter()
        res[name] = parts[name](args, device)
        print(name, f'{time.perf_counter() - began:.0f} s', json.dumps(res[name]), flush=True)
        args.out.write_text(json.dumps(res, indent=1) + '\n')


if __name__ == '__main__': main()
