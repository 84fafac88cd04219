"""What an epoch costs while the body is frozen, beside one in which everything learns: the published warm-up is 25 such epochs

    python benchmarks/frozen.py [--backbone mobilenet_v2] [--pixels 128] [--images 128] [--rounds 3] [--threads 1]

Four ways to train the same network on the same images, one epoch after the other in turns (forward, then backward, then forward ...):

    everything   every parameter learns
    frozen       the head learns; autograd records nothing below it, and the validation images, which stay the same, are asked once
    forward      the body answers to the augmented training images and nothing else is done: what a frozen epoch cannot do without
    as they are  the head learns on images without augmentation, so the body is asked once for every image

An epoch is training and validation, as `fit_schedule` runs them. What asking once costs is told apart (`asking`), and `warm-up of 25` spreads it over
the published 25 epochs. Times are medians over the rounds, in wall seconds and in processor seconds: where others use the machine the latter tell more. The
images are noise, which costs what radiographs cost. Results go to benchmarks/frozen.json.
"""
import argparse
import json
import os
import platform
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
EPOCHS = 25 # of the published warm-up


def learner(args, augmentation):
    "A network on noise, a quarter of it for validation"
    import numpy as np
    import torch
    from fastai.data.core import DataLoaders

    from radinet_nb.data.loaders import CacheLoader
    from radinet_nb.learning.networks import Network
    from radinet_nb.learning.schedules import make_learner
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 255, (args.images, args.pixels, args.pixels), dtype=np.uint8)
    index, targets, n = np.arange(args.images), np.arange(args.images) % 2, 3*args.images//4
    train = CacheLoader(images, index[:n], targets[:n], bs=args.batch, training=True, augmentation=augmentation)
    return make_learner(DataLoaders(train, CacheLoader(images, index[n:], targets[n:], bs=4*args.batch), device='cpu'), Network(args.backbone))


def forward(learn):
    "Wall and processor seconds of the body's answers to the training images, without head, loss or learner: what a frozen epoch cannot do without"
    import torch
    learn.model.body.eval()
    began = time.perf_counter(), time.process_time()
    with torch.no_grad():
        for x, _ in learn.dls.train: learn.model.body(x)
    return time.perf_counter()-began[0], time.process_time()-began[1]


def epoch(learn):
    "Wall and processor seconds of one epoch"
    from fastai.callback.core import Callback

    class Clock(Callback):
        order = -100

        def before_epoch(self): self.began = time.perf_counter(), time.process_time()

        def after_epoch(self): self.took = time.perf_counter()-self.began[0], time.process_time()-self.began[1]
    clock = Clock()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-4, cbs=[clock])
    return clock.took


def contestants(args, keeping):
    "Name to a function that trains one epoch and says what it took; and what asking once took; features live as long as `keeping`"
    import torch

    from radinet_nb.learning.frozen import asked_once
    from radinet_nb.learning.schedules import free_blocks
    whole, frozen, kept = learner(args, 1.), learner(args, 1.), learner(args, 1.)
    free_blocks(whole.model, 'all')
    asking = {}
    for name, learn, plain in (('frozen', frozen, False), ('as they are', kept, True)):
        free_blocks(learn.model, 'head')
        began = time.perf_counter(), time.process_time()
        keeping.enter_context(asked_once(learn, plain))
        asking[name] = time.perf_counter()-began[0], time.process_time()-began[1]
    assert frozen.model.body(torch.zeros(2, 3, args.pixels, args.pixels)).grad_fn is None
    return {'everything': lambda: epoch(whole), 'frozen': lambda: epoch(frozen), 'forward': lambda: forward(frozen),
            'as they are': lambda: epoch(kept)}, asking


def main(args, keeping):
    import fastai
    import torch
    import torchvision
    torch.set_num_threads(args.threads)
    ways, asking = contestants(args, keeping)
    took = {k: [] for k in ways}
    for o in ways.values(): o() # the first epoch allocates
    for r in range(args.rounds):
        for k in list(ways)[::1 if r % 2 == 0 else -1]: took[k].append(ways[k]())
        print(r, {k: tuple(round(s, 3) for s in v[-1]) for k, v in took.items()}, flush=True)
    result = dict(what=f'{args.backbone} at {args.pixels} pixels, {args.images} images (a quarter for validation), batches of {args.batch}, on the CPU',
                  threads=args.threads, rounds=args.rounds)
    for i, clock in enumerate(('wall', 'processor')):
        an_epoch = {k: median(s[i] for s in v) for k, v in took.items()}
        spread = {k: an_epoch[k]+asking.get(k, (0, 0))[i]/EPOCHS for k in an_epoch}
        result[clock] = dict(seconds_an_epoch={k: round(v, 4) for k, v in an_epoch.items()}, asking={k: round(v[i], 3) for k, v in asking.items()},
                             ratio_to_everything={k: round(v/an_epoch['everything'], 4) for k, v in an_epoch.items()},
                             ratio_in_a_warm_up_of_25={k: round(v/an_epoch['everything'], 4) for k, v in spread.items()},
                             rounds={k: [round(s[i], 3) for s in v] for k, v in took.items()})
    result['load'] = round(os.getloadavg()[0], 2)
    result['machine'] = dict(cores=os.cpu_count(), processor=platform.machine(), python=platform.python_version(), torch=torch.__version__,
                             torchvision=torchvision.__version__, fastai=fastai.__version__)
    args.result.write_text(json.dumps(result, indent=1)+'\n')
    print(json.dumps(result, indent=1))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--backbone', default='mobilenet_v2')
    parser.add_argument('--pixels', type=int, default=128)
    parser.add_argument('--images', type=int, default=128)
    parser.add_argument('--batch', type=int, default=16)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--result', type=Path, default=HERE/'frozen.json')
    with ExitStack() as keeping: main(parser.parse_args(), keeping)
