"""What a split by near-duplicates adds to a score on FracAtlas, and what is left of it under stricter groups

    python benchmarks/groups.py --weights WEIGHTS.pth [--data FOLDER] [--pixels 128] [--kept FILE]

No network is trained: the features of a frozen body with ImageNet weights, and on them a logistic regression that
learns "fractured". Each image is scored by models that have not seen its group (four folds, each seed of the folds a
repeat), once for each grouping; the AUC counts pairs of images that one model has scored, and all images are scored.
So every grouping is measured on the same images, and the differences are paired. Intervals draw what `sequence` never
tears apart (its split units) and the repeats, both with replacement. `without_hardware` leaves the images with screws,
plates or casts out of the scored ones, not out of training. The bars that see no bone (hardware flag, size of the
image, border of the image) are scored the same way, split by `sequence`.

A fine-tuned network may remember more of its training images than a linear model on frozen features can; that is not
measured here. Results go to benchmarks/groups.json. FracAtlas is looked for in the folder that the environment variable
RADINET_DATA names; without it, or without weights, nothing is measured and the file stays.
"""
import argparse
import hashlib
import json
import platform
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
GROUPINGS = 'image', 'dupgroup', 'sequence', 'block'
DIFFERENCES = ('dupgroup', 'sequence'), ('sequence', 'block'), ('dupgroup', 'block')
#: fractured and sound rows of these parts are scored; `all` learns from all parts
TARGETS = dict(all=None, hand='hand', leg='leg')


def frozen_features(studies, cache, backbone, weights):
    "Features of every image by a frozen body with ImageNet weights"
    import numpy as np

    from radinet_nb.data.loaders import Batches, CacheLoader
    from radinet_nb.learning.frozen import loader_features
    from radinet_nb.learning.networks import Network
    from radinet_nb.learning.weights import carry, imagenet_weights
    network = Network(backbone)
    state, origin = imagenet_weights(backbone, weights)
    carry(network, state, where=weights)
    scale = dict(mean=network.spec.mean, std=network.spec.std)
    loader = CacheLoader(cache.images, cache.rows_of(studies.path), np.zeros(len(studies), int), Batches(32, **scale))
    return loader_features(network, loader).numpy(), origin


def probe(strength):
    "A logistic regression on standardized features"
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))


def scored(model, features, label, units, seed):
    "Probability of a fracture for every row, by models that have not seen its unit, and which of the models it was"
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold
    out, fold = np.empty(len(label)), np.empty(len(label), int)
    splits = StratifiedGroupKFold(4, shuffle=True, random_state=seed).split(features, label, units)
    for i, (train, test) in enumerate(splits):
        out[test] = model.fit(features[train], label[train]).predict_proba(features[test])[:, 1]
        fold[test] = i
    return out, fold


def auc_within(label, scores, fold, weights):
    "Share of pairs in the right order among those that one model has scored, in every resample"
    import numpy as np

    from radinet_nb.analysis.roc import rank_metrics
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for i in np.unique(fold):
        y, w = label[fold == i], weights[:, fold == i]
        both = w[:, y == 1].sum(1)*w[:, y == 0].sum(1)
        right += np.nan_to_num(rank_metrics(y, scores[fold == i], w)['auc'])*both
        pairs += both
    return right/pairs


class Draws:
    "AUCs of scores on resampled clusters and repeats: the same draws for all scores"

    def __init__(self, label, clusters, repeats, resamples=1000, seed=0):
        import numpy as np

        from radinet_nb.analysis.resampling import draw_clusters
        rng = np.random.default_rng(seed)
        self.label, self.codes = label, np.unique(clusters, return_inverse=True)[1]
        self.weights = draw_clusters(self.codes.max()+1, resamples, rng)
        self.repeats = rng.integers(0, repeats, (resamples, repeats))

    def auc(self, scores, rows):
        "Mean over repeats, and its value in every resample"
        import numpy as np
        once = np.ones((1, self.weights.shape[1]))
        weights, y = np.concatenate([once, self.weights])[:, self.codes[rows]], self.label[rows]
        every = np.stack([auc_within(y, p[rows], fold[rows], weights) for p, fold in scores], axis=1)
        return every[0].mean(), np.take_along_axis(every[1:], self.repeats, axis=1).mean(1)


def row(value, drawn, digits=4):
    "A number with its interval"
    from radinet_nb.analysis.resampling import percentile_interval
    low, high, _ = percentile_interval(drawn)
    return {k: round(float(v), digits)+0. for k, v in dict(value=value, low=low, high=high).items()}


def measure_target(studies, features, units, others, part, args):
    "All groupings on one target: AUC with and without hardware, the drops, and the bars that see no bone"
    import numpy as np

    from radinet_nb.analysis.shortcuts import shortcut_model
    keep = (studies.label.notna() & (studies.body_part.eq(part) if part else True)).to_numpy(bool)
    label, X = studies.label[keep].to_numpy(int), features[keep]
    bare = (studies.hardware[keep] == 0).to_numpy(bool)
    units = {k: v[keep] for k, v in units.items()}
    draws = Draws(label, units['sequence'], args.repeats, args.resamples)
    every, rows = np.ones(len(label), bool), {}
    for grouping in GROUPINGS:
        p = [scored(probe(args.strength), X, label, units[grouping], seed) for seed in range(args.repeats)]
        rows[grouping] = draws.auc(p, every), draws.auc(p, bare)
    for name, columns in others.items():
        p = [scored(shortcut_model(), columns[keep], label, units['sequence'], seed) for seed in range(args.repeats)]
        rows[name] = draws.auc(p, every), draws.auc(p, bare)
    gaps = {f'{a} minus {b}': [tuple(np.subtract(x, y) for x, y in zip(*o, strict=True))
                               for o in zip(rows[a], rows[b], strict=True)] for a, b in DIFFERENCES}
    both = {k: dict(auc=row(*v[0]), without_hardware=row(*v[1])) for k, v in (rows | gaps).items()}
    return dict(images=len(label), fractured=int(label.sum()), without_hardware=int(bare.sum()),
                fractured_without_hardware=int(label[bare].sum()), auc={k: both[k] for k in GROUPINGS},
                no_bone={k: both[k] for k in others}, differences={k: both[k] for k in gaps})


def read_all(folder):
    "FracAtlas by `sequence`, and the split units of every grouping in the same order of rows"
    import pandas as pd

    from radinet_nb.data.fracatlas import read_fracatlas
    from radinet_nb.data.studies import split_units
    tables = {o: read_fracatlas(folder, grouping=o).studies for o in GROUPINGS}
    studies = tables['sequence']
    assert all((t.study == studies.study).all() for t in tables.values())
    return studies, {k: pd.factorize(split_units(t))[0] for k, t in tables.items()}


def no_bone(studies, cache):
    "What of an image a model may see that shows no bone"
    from radinet_nb.analysis.shortcuts import shortcut_features
    from radinet_nb.data.sizes import image_sizes
    return shortcut_features(studies, cache, image_sizes(studies))


def kept_features(studies, args):
    "Features of the network and of what sees no bone, read where an earlier call kept them for the same images"
    import numpy as np

    from radinet_nb.data.cache import build_cache
    asked = json.dumps([args.backbone, args.pixels, Path(args.weights).name, studies.study.tolist()])
    if args.kept and args.kept.exists():
        with np.load(args.kept) as kept:
            if str(kept['asked']) == asked:
                others = {k.removeprefix('other_'): kept[k] for k in kept.files if k.startswith('other_')}
                return kept['features'], others, str(kept['origin'])
    with tempfile.TemporaryDirectory() as out:
        cache = build_cache(studies, Path(out)/'cache', args.pixels, jobs=1)
        features, origin = frozen_features(studies, cache, args.backbone, args.weights)
        others = no_bone(studies, cache)
    if args.kept:
        arrays = {f'other_{k}': v for k, v in others.items()}
        np.savez(args.kept, asked=asked, features=features, origin=origin, **arrays)
    return features, others, origin


def main(args):
    from radinet_nb.data.layouts import open_data
    from radinet_nb.data.studies import fingerprint
    folder = Path(args.data) if args.data else open_data('fracatlas')
    if not folder.is_dir() or not args.weights:
        print('skipped: name --weights, and FracAtlas by --data or RADINET_DATA')
        return
    start, cpu = time.time(), time.process_time()
    studies, units = read_all(folder)
    features, others, origin = kept_features(studies, args)
    targets = {k: measure_target(studies, features, units, others, TARGETS[k], args) for k in args.targets}
    import numpy
    import sklearn
    import torch
    result = dict(
        what='AUC of "fractured" by a logistic regression on frozen features, FracAtlas', targets=targets,
        units={k: len(set(v)) for k, v in units.items()},
        setting=dict(backbone=args.backbone, pixels=args.pixels, weights=origin,
                     weights_sha256=hashlib.sha256(Path(args.weights).read_bytes()).hexdigest(), folds=4,
                     repeats=args.repeats, resamples=args.resamples, strength=args.strength),
        data=dict(fingerprint=fingerprint(studies), images=len(studies)),
        seconds=dict(wall=round(time.time()-start), cpu=round(time.process_time()-cpu)),
        machine=dict(processor=platform.machine(), python=platform.python_version(), torch=torch.__version__,
                     numpy=numpy.__version__, sklearn=sklearn.__version__))
    args.result.write_text(json.dumps(result, indent=1)+'\n')
    print(json.dumps(result, indent=1))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='', help='folder of FracAtlas')
    parser.add_argument('--weights', default='', help='ImageNet weights of the backbone')
    parser.add_argument('--backbone', default='mobilenet_v2')
    parser.add_argument('--pixels', type=int, default=128)
    parser.add_argument('--kept', type=Path, help='a file in which features are kept, to be read by the next call')
    parser.add_argument('--targets', nargs='*', default=list(TARGETS))
    parser.add_argument('--repeats', type=int, default=5, help='seeds of the folds')
    parser.add_argument('--resamples', type=int, default=1000)
    parser.add_argument('--strength', type=float, default=.001, help='C of the logistic regression')
    parser.add_argument('--result', type=Path, default=HERE/'groups.json')
    main(parser.parse_args())
