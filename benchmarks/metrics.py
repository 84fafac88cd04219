"""Clustered bootstrap of all metrics: ours against a loop over scikit-learn, on one core.

python benchmarks/metrics.py [RESULT.json]

Both draw the same patients. Ours runs all 2,000 resamples; the loop runs fewer and is scaled, since its cost is the
same for each.
"""
import os

for o in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ[o] = '1'

import json
import platform
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from radinet_nb.analysis.binary import METRICS, measure
from radinet_nb.analysis.metrics import evaluate
from radinet_nb.analysis.resampling import draw_clusters

STUDIES, PATIENTS, RESAMPLES, LOOPED, REPEATS = 3197, 2400, 2000, 60, 7


def predictions(seed=0):
    "As many studies as karam2021's MURA task has, some patients with several"
    rng = np.random.default_rng(seed)
    patient = np.sort(np.concatenate([np.arange(PATIENTS), rng.integers(0, PATIENTS, STUDIES-PATIENTS)]))
    y = rng.integers(0, 2, STUDIES)
    score = 1.6*(y-.5) + rng.normal(0, 1, STUDIES)
    return pd.DataFrame(dict(patient=patient, target=y, probability=1/(1+np.exp(-score))))


def calibration_error(y, p):
    bins = np.clip((p*10).astype(int), 0, 9)
    return sum(abs((y[bins == b]-p[bins == b]).sum()) for b in range(10))/len(y)


def one_by_one(y, p, call):
    "Every metric by its own call, as one would write it"
    return dict(accuracy=sk.accuracy_score(y, call), precision=sk.precision_score(y, call),
                recall=sk.recall_score(y, call),
                specificity=sk.recall_score(y, call, pos_label=0), npv=sk.precision_score(y, call, pos_label=0),
                f1=sk.f1_score(y, call),
                kappa=sk.cohen_kappa_score(y, call), auc=sk.roc_auc_score(y, p),
                average_precision=sk.average_precision_score(y, p),
                brier=sk.brier_score_loss(y, p), calibration_error=calibration_error(y, p))


def loop(d, weights):
    y, p = d.target.to_numpy(), d.probability.to_numpy()
    rows = list(d.groupby('patient').indices.values())
    res = []
    for w in weights:
        i = np.concatenate([np.tile(rows[g], int(n)) for g, n in enumerate(w) if n])
        res.append(one_by_one(y[i], p[i], p[i] >= .5))
    return pd.DataFrame(res)


def seconds(f):
    "Wall and processor time: the second one does not suffer from neighbours on a busy machine"
    wall, own = time.perf_counter(), time.process_time()
    f()
    return time.perf_counter()-wall, time.process_time()-own


def cpu():
    info = Path('/proc/cpuinfo')
    names = [o.split(':')[1].strip() for o in info.read_text().splitlines()
             if o.startswith('model name')] if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def main(out=None):
    warnings.simplefilter('ignore')
    d = predictions()
    weights = draw_clusters(PATIENTS, LOOPED, np.random.default_rng(1))
    drawn = pd.DataFrame(measure(d.target.to_numpy(), d.probability.to_numpy(), .5, d.patient.to_numpy(), weights))
    gap = float((drawn-loop(d, weights)[list(METRICS)]).abs().max().max())
    if gap > 1e-9: sys.exit(f'the two disagree by {gap}')
    evaluate(d, resamples=10)  # warm up
    # alternate, so that a busy machine slows both
    times = [(seconds(lambda: evaluate(d, resamples=RESAMPLES)), seconds(lambda: loop(d, weights)))
             for _ in range(REPEATS)]
    ours = np.median([o for o, _ in times], axis=0)
    theirs = np.median([o for _, o in times], axis=0)*RESAMPLES/LOOPED
    result = dict(what='2,000 clustered bootstrap resamples of 11 metrics', studies=STUDIES, patients=PATIENTS,
                  resamples=RESAMPLES, repeats=REPEATS,
                  ours_median_s=dict(wall=round(ours[0], 3), cpu=round(ours[1], 3)),
                  scikit_learn_loop_median_s=dict(wall=round(theirs[0], 1), cpu=round(theirs[1], 1)),
                  loop_resamples_timed=LOOPED,
                  ratio=dict(wall=round(theirs[0]/ours[0], 1), cpu=round(theirs[1]/ours[1], 1)),
                  largest_disagreement=gap, cores_used=1,
                  machine=dict(cpu=cpu(), cores=os.cpu_count(), system=platform.system(),
                               load=[round(o, 1) for o in os.getloadavg()]),
                  versions=dict(python=platform.python_version(), **{o: version(o)
                                                                     for o in ('numpy', 'pandas', 'scikit-learn',
                                                                               'scipy')}))
    Path(out or Path(__file__).with_suffix('.json')).write_text(json.dumps(result, indent=1) + '\n')
    print(json.dumps(result, indent=1))


if __name__ == '__main__': main(*sys.argv[1:])
