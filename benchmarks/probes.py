"""Frozen linear probes on FracAtlas: do ImageNet weights of a package arrive in the right order?

A logistic regression on features of a frozen network, in five folds of contiguous stretches of ids, so that the views
of a patient stay together. Beside the packaged EfficientNet-Lite0: the same network with random weights, and with the
packaged weights but batch normalizations of equal width exchanged among each other, as a wrong order would leave them
(all shapes fit).

    python benchmarks/probes.py [--images 600]

FracAtlas is looked for where `RADINET_DATA` says; without it nothing is measured. Results go to
benchmarks/probes.json.
"""
import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.modules.batchnorm import _BatchNorm

from radinet_nb.data.fracatlas import read_fracatlas
from radinet_nb.learning.networks import Network
from radinet_nb.learning.weights import carry, imagenet_weights

BACKBONE, PIXELS, STRETCH = 'tf_efficientnet_lite0', 224, 50


def chosen_views(folder, n):
    "Views with a label, a third of them fractured, and the stretch of ids that each stands in"
    views = read_fracatlas(folder, grouping='image', conflicts='drop').studies
    views = views[views.label.notna()]
    parts = [views[views.label == k].sample(m, random_state=0) for k, m in ((1, n//3), (0, n - n//3))]
    views = pd.concat(parts, ignore_index=True)
    return views.assign(stretch=views.path.map(lambda o: int(Path(o).stem[3:])//STRETCH))


def padded(path):
    "An image, 8 bit, its long side `PIXELS`, padded to a square"
    image = Image.open(path).convert('L')
    image.thumbnail((PIXELS, PIXELS))
    square = Image.new('L', (PIXELS, PIXELS))
    square.paste(image, ((PIXELS - image.width)//2, (PIXELS - image.height)//2))
    return np.asarray(square)


def network_of(start):
    "The frozen network: `imagenet`, `random`, or `exchanged`"
    torch.manual_seed(0)
    network = Network(BACKBONE).eval()
    if start == 'random': return network
    carry(network, imagenet_weights(BACKBONE)[0])
    if start == 'exchanged':
        norms = {}
        for m in network.body.modules():
            if isinstance(m, _BatchNorm): norms.setdefault(len(m.weight), []).append(m)
        for own in norms.values():
            states = [{k: v.clone() for k, v in m.state_dict().items()} for m in own]
            for m, state in zip(own, states[1:] + states[:1], strict=True): m.load_state_dict(state)
    return network


def probe(start, pixels, views):
    "AUC for fracture, on all views and on hands"
    network, parts = network_of(start).to(memory_format=torch.channels_last), []
    with torch.no_grad():
        for i in range(0, len(pixels), 32):
            x = network.normalize(torch.from_numpy(pixels[i:i + 32])).to(memory_format=torch.channels_last)
            parts.append(network.body(x).numpy())
    model = make_pipeline(StandardScaler(), LogisticRegression(C=.001, max_iter=500, class_weight='balanced'))
    y, hand = views.label.to_numpy('int64'), (views.body_part == 'hand').to_numpy()
    score = cross_val_predict(model, np.concatenate(parts), y, groups=views.stretch, cv=GroupKFold(5),
                              method='decision_function')
    aucs = dict(auc=roc_auc_score(y, score), auc_hands=roc_auc_score(y[hand], score[hand]))
    return dict(start=start) | {k: round(v, 3) for k, v in aucs.items()}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=600, help='views, a third of them fractured')
    given, folder = parser.parse_args(), Path(os.environ.get('RADINET_DATA', 'data'))/'fracatlas'
    if not folder.is_dir(): sys.exit(print(f'no FracAtlas at {folder}: set RADINET_DATA; nothing was measured'))
    torch.set_num_threads(1)
    views, began = chosen_views(folder, given.images), time.process_time()
    pixels = np.stack([padded(o) for o in views.path])
    rows = [probe(o, pixels, views) for o in ('imagenet', 'random', 'exchanged')]
    found = dict(backbone=BACKBONE, pixels=PIXELS, views=len(views), fractured=int(views.label.sum()),
                 hands=int((views.body_part == 'hand').sum()), folds=f'five, of stretches of {STRETCH} ids', rows=rows,
                 cpu_seconds=round(time.process_time() - began))
    Path(__file__).with_suffix('.json').write_text(json.dumps(found, indent=1) + '\n')
    print(json.dumps(found, indent=1))
