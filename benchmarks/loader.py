"""Our loader against fastai's `ImageDataLoaders.from_df`, on the same images; and what it costs a training step

    python benchmarks/loader.py [--images 96] [--rounds 3] [--threads 2] [--steps 6]

Both give augmented batches of 16 at 224 pixels on the CPU. fastai decodes, resizes and augments every image in every
epoch, with `--threads` workers and the transformations that its tutorials use (`Resize`, `aug_transforms`); ours
reads a cache that was built once (its cost stands beside) and augments the batch. The first epoch is not counted.
Contestants take turns, each in a process of its own. The training step is forward, backward and Adam of ResNet-18;
fed by the loader, and by one tensor that is already there; steps take turns. Where others use the machine, compare
processor milliseconds: wall time there measures the others. Results go to benchmarks/loader.json.
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


def make_images(folder, images, pixels=1324):
    "Pictures with structure and grain, as PNG and as JPEG, and their table"
    import numpy as np
    import pandas as pd
    from PIL import Image
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:pixels, :pixels].astype(np.float32)
    def wave(): return np.sin(x*rng.uniform(.002, .02)+y*rng.uniform(-.02, .02)+rng.uniform(0, 6))
    films = [sum(wave() for _ in range(4)) for _ in range(4)]
    films = [np.clip((o+4)*28+rng.normal(0, 3, o.shape), 0, 255).astype(np.uint8) for o in films]
    for i in range(images):
        image = Image.fromarray(np.roll(films[i % 4], 11*i, axis=1))
        image.save(folder/f'{i:04}.png', compress_level=1); image.save(folder/f'{i:04}.jpg', quality=95)
    rows = [dict(name=f'{i:04}', label=i % 2, valid=i % 4 == 3) for i in range(images)]
    pd.DataFrame(rows).to_csv(folder/'table.csv', index=False)


def study_rows(folder, suffix):
    "The table as study table"
    import pandas as pd

    from radinet_nb.data.studies import study_table
    t = pd.read_csv(folder/'table.csv', dtype=dict(name=str))
    split = t.valid.map({True: 'valid', False: 'train'})
    paths = [str(folder/f'{n}.{suffix}') for n in t.name]
    return study_table(dict(patient=t.name, path=paths, label=t.label, split=split))


def busy():
    "Processor seconds so far, of this process and of the workers that have ended"
    t = os.times()
    return t.user+t.system+t.children_user+t.children_system


def epochs(dl, n=3):
    "Images a second, and processor milliseconds an image, of the training batches, by epoch"
    speed, work = [], []
    for _ in range(n):
        start, cpu, seen = time.perf_counter(), busy(), 0
        for x,_ in dl: seen += len(x); assert x.shape[1:] == (3, 224, 224)
        speed.append(seen/(time.perf_counter()-start)); work.append(1000*(busy()-cpu)/seen)
    return dict(epochs=speed, processor=work)


def contest(who, folder, args):
    "Images a second from the second epoch on"
    import torch
    torch.set_num_threads(args.threads)
    suffix = who.split()[-1]
    if who.startswith('fastai'):
        import pandas as pd
        from fastai.vision.augment import Resize, ResizeMethod, aug_transforms
        from fastai.vision.data import ImageDataLoaders
        t = pd.read_csv(folder/'table.csv', dtype=dict(name=str)).assign(name=lambda o: o.name+'.'+suffix)
        columns = dict(fn_col='name', label_col='label', valid_col='valid')
        dls = ImageDataLoaders.from_df(t, folder, **columns, bs=16, num_workers=args.threads, device='cpu',
                                       item_tfms=Resize(224, method=ResizeMethod.Pad, pad_mode='zeros'),
                                       batch_tfms=aug_transforms(max_warp=0))
        return epochs(dls.train)
    from radinet_nb.data.cache import build_cache
    from radinet_nb.data.loaders import dataloaders
    from radinet_nb.learning.tasks import FRACTURE
    rows, start = study_rows(folder, suffix), time.perf_counter()
    cache = build_cache(rows, folder/f'cache {suffix}', 224, jobs=args.threads)
    return dict(cache_seconds=time.perf_counter()-start) | epochs(dataloaders(cache, rows, FRACTURE, 16).train, 6)


def step_cost(folder, args):
    "Seconds a step, fed by the loader and by a tensor already in memory"
    import torch
    from torchvision.models import resnet18

    from radinet_nb.data.cache import build_cache
    from radinet_nb.data.loaders import dataloaders
    from radinet_nb.learning.tasks import FRACTURE
    torch.set_num_threads(args.threads)
    rows = study_rows(folder, 'png')
    dl = dataloaders(build_cache(rows, folder/'cache png', 224), rows, FRACTURE, 16).train
    torch.manual_seed(0)
    model = resnet18(num_classes=2).train()
    opt = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step(x, y): opt.zero_grad(); torch.nn.functional.cross_entropy(model(x), y).backward(); opt.step()
    batches, held = iter(dl), next(iter(dl))
    step(*held); step(*held)
    fed, resident, busy = [], [], [0, 0]
    for _ in range(args.steps):
        start, cpu = time.perf_counter(), time.process_time()
        try: batch = next(batches)
        except StopIteration: batches = iter(dl); batch = next(batches)
        step(*batch); fed.append(time.perf_counter()-start); busy[0] += time.process_time()-cpu
        start, cpu = time.perf_counter(), time.process_time()
        step(*held); resident.append(time.perf_counter()-start); busy[1] += time.process_time()-cpu
    return dict(fed_seconds=statistics.median(fed), resident_seconds=statistics.median(resident),
                ratio=statistics.median(a/b for a,b in zip(fed, resident, strict=True)), steps=args.steps,
                processor_ratio=busy[0]/busy[1], network='resnet18, batches of 16')


def main(args):
    import fastai
    import PIL
    import torch
    import torchvision
    who, found = [f'{w} {s}' for s in ('png', 'jpg') for w in ('fastai', 'ours')], {}
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), args.images)

        def call(what):
            code = [sys.executable, '-W', 'ignore', __file__, '--run', what, '--folder', folder]
            code += ['--threads', str(args.threads), '--steps', str(args.steps)]
            env = os.environ | dict(OMP_NUM_THREADS=str(args.threads))
            out = subprocess.run(code, check=True, stdout=subprocess.PIPE, text=True, env=env)
            return json.loads(out.stdout.splitlines()[-1])
        for r in range(args.rounds):
            for o in who:
                found.setdefault(o, []).append(call(o) | dict(load=round(os.getloadavg()[0], 2)))
                print(r, o, found[o][-1], flush=True)
        step = call('step')
    work = {o: round(statistics.median(statistics.median(f['processor'][1:]) for f in v), 2) for o,v in found.items()}
    later = {o: [statistics.median(f['epochs'][1:]) for f in v] for o,v in found.items()}
    pairs = {s: zip(later[f'ours {s}'], later[f'fastai {s}'], strict=True) for s in ('png', 'jpg')}
    faster = {s: [round(a/b, 1) for a,b in o] for s,o in pairs.items()}
    built = {o: round(v[0]['cache_seconds'], 2) for o,v in found.items() if 'cache_seconds' in v[0]}
    result = dict(what='augmented training batches at 224 pixels from images of 1,324 pixels, on the CPU',
                  images=args.images, threads=args.threads,
                  images_a_second={o: round(statistics.median(v), 1) for o,v in later.items()},
                  processor_ms_an_image=work,
                  processor_ratio={s: round(work[f'fastai {s}']/work[f'ours {s}'], 1) for s in ('png', 'jpg')},
                  ours_is_faster_by={s: round(statistics.median(faster[s]), 1) for s in faster}, faster_by_round=faster,
                  cache_seconds=built,
                  load={o: [f['load'] for f in v] for o,v in found.items()},
                  training_step={k: round(v, 4) if isinstance(v, float) else v for k,v in step.items()},
                  machine=dict(cores=os.cpu_count(), processor=platform.machine(), python=platform.python_version(),
                               torch=torch.__version__, torchvision=torchvision.__version__, fastai=fastai.__version__,
                               pillow=PIL.__version__))
    args.result.write_text(json.dumps(result, indent=1)+'\n')
    print(json.dumps(result, indent=1))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=96)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--steps', type=int, default=12)
    parser.add_argument('--result', type=Path, default=HERE/'loader.json')
    for o in 'run', 'folder': parser.add_argument(f'--{o}', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run == 'step': print(json.dumps(step_cost(Path(args.folder), args)))
    elif args.run: print(json.dumps(contest(args.run, Path(args.folder), args)))
    else: main(args)
