"""FROC of 1,000 maps of 96 x 96: components once a map, then 2,000 clustered draws; writes benchmarks/froc.json.

    python benchmarks/froc.py [IMAGES]
"""
import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from radinet_nb.analysis.froc import froc
from radinet_nb.analysis.froc_maps import find_components
from radinet_nb.analysis.froc_rules import MAP_RULES, map_steps

SIDE, DRAWS = 96, 2000


def drawn_maps(images, smooth, seed=0):
    "Maps in [0, 1] with spots of noise, three images in ten with one or two lesions, brighter on most of them"
    rng, maps, truths = np.random.default_rng(seed), [], []
    for i in range(images):
        noise = gaussian_filter(rng.normal(size=(SIDE, SIDE)), smooth)
        m = 2*noise/noise.std() - 4
        corners = rng.integers(4, SIDE - 14, (rng.integers(1, 3) if i % 10 < 3 else 0, 2))
        for x, y in corners: m[y:y+9, x:x+9] += 5*rng.random()
        maps.append((1/(1 + np.exp(-m))).astype('float16'))
        truths.append(np.column_stack([corners, corners + 9]))
    return maps, truths, np.arange(images)//2


def timed(f):
    wall, cpu = time.perf_counter(), time.process_time()
    return f(), dict(seconds=round(time.perf_counter() - wall, 2), cpu_seconds=round(time.process_time() - cpu, 2))


def main(images=1000):
    res = dict(images=images, side=SIDE, draws=DRAWS, cases={})
    for name, smooth in {'smooth maps': 3, 'noise, no two pixels alike': 0.}.items():
        maps, truths, patients = drawn_maps(images, smooth)
        found, cost = timed(lambda m=maps: [find_components(o) for o in m])
        case = dict(components=dict(cost, a_map=round(float(np.mean([len(o.levels) for o in found])))))
        for rule in MAP_RULES:
            steps, ruled = timed(lambda m=maps, t=truths, p=patients, r=rule,
                                 f=found: map_steps(m, t, p, MAP_RULES[r], f))
            table, drawn = timed(lambda s=steps: froc(s, resamples=DRAWS))
            case[rule] = dict(steps=len(steps.thresholds), rule=ruled, draws=drawn, froc=round(table.value[0], 3),
                              low=round(table.low[0], 3), high=round(table.high[0], 3))
        res['cases'][name] = case
    return res


if __name__ == '__main__':
    found = main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    path = Path(__file__).with_suffix('.json')
    path.write_text(json.dumps(found, indent=1) + '\n')
    print(path.read_text())
