"""Training: images a second and peak memory, ours against a plain fastai `vision_learner` over `ImageDataLoaders`

    python benchmarks/training.py [--networks mobilenet_v2,densenet169] [--rounds 5] [--threads 1] [--device cpu]

Same architecture with random weights, same JPEG files, size and batch, augmentation on in both (fastai: `Resize` and
`aug_transforms`; ours: the cache and `augment`), every parameter trained, Adam. Each contestant is a process of its
own; they take turns, an epoch each, in the order ABBA, and only the training part of an epoch is timed. Reported are
the median of the rounds and of the ratio within a round, in wall seconds and in processor seconds: where others use
the machine the latter tell more. The cost of building our cache stands apart, with the epochs after which it has
paid.

`frozen` is the published warm-up, a head on a frozen body: seconds of an epoch when everything learns, when the body
is frozen, and when its features are cached because the images are not augmented (spread over 25 epochs); and fastai's
own frozen epoch.

Images: FracAtlas where `RADINET_DATA` has it, else drawn here. Results go to benchmarks/training.json.
"""
import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
SIZES = {'mobilenet_v2': dict(batch=32, images=256), 'densenet169': dict(batch=16, images=64)}


def pictures(folder, n):
    "`n` radiographs as JPEG, and their table"
    import numpy as np
    import pandas as pd
    from PIL import Image
    real = sorted((Path(os.environ.get('RADINET_DATA', HERE.parent/'../shared/data'))/'fracatlas').rglob('*.jpg'))
    paths, rng = [], np.random.default_rng(0)
    for i in range(n):
        drawn = rng.normal(90, 40, (384, 320)).clip(0, 255).astype('uint8')
        image = Image.open(real[i]) if len(real) > n else Image.fromarray(drawn)
        image.convert('RGB').save(folder/f'{i:04}.jpg', quality=90)
        paths.append(str(folder/f'{i:04}.jpg'))
    table = pd.DataFrame(dict(path=paths, label=[i % 2 for i in range(n)], patient=[f'p{i}' for i in range(n)]))
    table['valid'] = [i >= n*3//4 for i in range(n)]
    return table, len(real) > n


def fastai_learner(name, table, args):
    "What fastai's own tutorial writes"
    import torch
    from fastai.losses import CrossEntropyLossFlat
    from fastai.vision.augment import Resize, aug_transforms
    from fastai.vision.data import ImageDataLoaders
    from fastai.vision.learner import vision_learner
    from torchvision import models
    named = table.assign(label=table.label.map({0: 'none', 1: 'fracture'}))
    dls = ImageDataLoaders.from_df(named, path='/', fn_col='path', label_col='label', valid_col='valid',
                                   item_tfms=Resize(args.pixels), batch_tfms=aug_transforms(), bs=SIZES[name]['batch'],
                                   num_workers=args.workers, device=torch.device(args.device))

    def arch(pretrained): # fastai 2.8 does not find where to cut a MobileNet, and does not hand its argument `cut` on
        whole = getattr(models, name)()
        return torch.nn.Sequential(whole.features, torch.nn.AdaptiveAvgPool2d(1), whole.classifier)
    learn = vision_learner(dls, arch if name.startswith('mobilenet') else getattr(models, name), pretrained=False,
                           loss_func=CrossEntropyLossFlat(), n_out=2)
    learn.unfreeze()
    return learn, 0.


def our_learner(name, table, args):
    "A stage's learner, without its record"
    from radinet_nb.data.cache import build_cache
    from radinet_nb.data.loaders import dataloaders
    from radinet_nb.data.studies import study_table
    from radinet_nb.learning.learners import make_learner
    from radinet_nb.learning.networks import Network
    from radinet_nb.learning.tasks import FRACTURE
    rows = study_table(table[['path', 'label', 'patient']])
    rows['split'] = table.valid.map({False: 'train', True: 'valid'}).astype('string').to_numpy()
    began = time.perf_counter()
    cache = build_cache(rows, Path(tempfile.mkdtemp())/'cache', args.pixels, jobs=1)
    seconds = time.perf_counter() - began
    dls = dataloaders(cache, rows, FRACTURE, batch_size=SIZES[name]['batch'], workers=args.workers, device=args.device)
    return make_learner(dls, Network(name)), seconds


def peak():
    "The most memory that this process has held, MiB"
    unit = 2**20 if sys.platform == 'darwin' else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/unit)


def timed(learn):
    "Seconds of the training part of one epoch"
    from fastai.callback.core import Callback, CancelValidException
    from fastai.callback.progress import ProgressCallback  # noqa: F401 - patches no_bar into Learner

    class Clock(Callback):
        order = -100

        def before_train(self): self.learn.began = time.perf_counter(), time.process_time()

        def after_train(self):
            now = time.perf_counter(), time.process_time()
            self.learn.took = [b - a for a, b in zip(self.learn.began, now, strict=True)]

        def before_validate(self): raise CancelValidException()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-4, cbs=[Clock()])
    return learn.took


def contestant(who, name, args):
    "A process that trains an epoch for every line it reads"
    import pandas as pd
    import torch
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    table = pd.read_csv(args.table)
    learn, cache_seconds = (our_learner if who == 'ours' else fastai_learner)(name, table, args)
    for line in sys.stdin:
        order = line.strip()
        if order == 'train': answer = timed(learn)
        if order == 'frozen': answer = frozen(learn, who)
        if order == 'end': answer = dict(peak_mib=peak(), cache_seconds=round(cache_seconds, 2))
        print(json.dumps(answer), flush=True)
        if order == 'end': return


def frozen(learn, who):
    "Seconds of an epoch of the warm-up"
    if who == 'fastai':
        learn.freeze()
        return dict(frozen=timed(learn)[1])
    from radinet_nb.learning.blocks import free_blocks
    from radinet_nb.learning.frozen import cached_features
    free_blocks(learn.model, 'head')
    learn.create_opt()
    plain = timed(learn)[1]
    began = time.process_time()
    with cached_features(learn, training=True):
        once = time.process_time() - began
        after = timed(learn)[1]
    # features are computed of validation images too, which the epochs above leave out
    share = len(learn.dls.train.index)/(len(learn.dls.train.index) + len(learn.dls.valid.index))
    return dict(frozen=plain, cached_features=once*share/25 + after)


def race(name, table_file, args):
    "Both contestants, taking turns"
    command = [sys.executable, __file__, '--table', str(table_file), '--threads', str(args.threads), '--networks', name,
               '--device', args.device, '--pixels', str(args.pixels), '--workers', str(args.workers)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    running = {o: subprocess.Popen([*command, '--who', o], **pipes) for o in ('ours', 'fastai')}

    def ask(who, what):
        running[who].stdin.write(f'{what}\n')
        running[who].stdin.flush()
        while True:
            line = running[who].stdout.readline()
            if not line: raise RuntimeError(f'{who} ended')
            if line.startswith(('{', '[')): return json.loads(line)
    for who in running: ask(who, 'train') # warm
    times = {'ours': [], 'fastai': []}
    for i in range(args.rounds):
        for who in ('ours', 'fastai') if i % 2 == 0 else ('fastai', 'ours'): times[who].append(ask(who, 'train'))
    still = {who: ask(who, 'frozen') for who in running}
    ends = {who: ask(who, 'end') for who in running}
    for p in running.values(): p.wait()
    n = SIZES[name]['images']*3//4//SIZES[name]['batch']*SIZES[name]['batch']
    res = dict(network=name, pixels=args.pixels, batch=SIZES[name]['batch'], images=n, rounds=args.rounds)
    for i, clock in enumerate(('wall', 'processor')):
        for who in times: res[f'{who}_images_a_second_{clock}'] = round(n/median(t[i] for t in times[who]), 2)
        ratios = [b[i]/a[i] for a, b in zip(times['ours'], times['fastai'], strict=True)]
        res[f'ratio_{clock}'], res[f'ratios_{clock}'] = round(median(ratios), 3), [round(o, 3) for o in ratios]
    whole = median(t[1] for t in times['ours'])
    gain = median(t[0] for t in times['fastai']) - median(t[0] for t in times['ours'])
    res['frozen'] = dict(everything_s=round(whole, 3), **{f'{k}_s': round(v, 3) for k, v in still['ours'].items()},
                         ratio_frozen=round(whole/still['ours']['frozen'], 2),
                         ratio_cached_features=round(whole/still['ours']['cached_features'], 1),
                         fastai_frozen_s=round(still['fastai']['frozen'], 3))
    res |= dict(ours_peak_mib=ends['ours']['peak_mib'], fastai_peak_mib=ends['fastai']['peak_mib'],
                cache_seconds=ends['ours']['cache_seconds'],
                epochs_until_the_cache_has_paid=round(ends['ours']['cache_seconds']/gain, 1) if gain > 0 else None)
    return res


def machine():
    lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []
    cpu = next((o.split(':')[1].strip() for o in lines if o.startswith('model name')), platform.processor())
    return dict(cpu=cpu, cores=os.cpu_count(), system=platform.system(), python=platform.python_version(),
                **{o: metadata.version(o) for o in ('torch', 'torchvision', 'fastai', 'numpy', 'pillow')})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', default='mobilenet_v2,densenet169')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--pixels', type=int, default=224)
    parser.add_argument('--workers', type=int, default=0)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--who', help=argparse.SUPPRESS)
    parser.add_argument('--table', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.who: return contestant(args.who, args.networks, args)
    out = HERE/'training.json'
    known = {o['network']: o for o in json.loads(out.read_text())['results']} if out.exists() else {}
    for name in args.networks.split(','):
        with tempfile.TemporaryDirectory() as folder:
            table, real = pictures(Path(folder), SIZES[name]['images'])
            table.to_csv(Path(folder)/'table.csv', index=False)
            where = dict(device=args.device, threads=args.threads, workers=args.workers, machine=machine())
            found = race(name, Path(folder)/'table.csv', args)
            known[name] = found | dict(pictures='FracAtlas' if real else 'drawn') | where
        print(json.dumps(known[name], indent=1))
        out.write_text(json.dumps(dict(results=list(known.values())), indent=1) + '\n')


if __name__ == '__main__': main()
