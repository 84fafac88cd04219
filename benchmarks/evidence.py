"""What the audit says of honest tables and planted errors, and its speed: python benchmarks/evidence.py [TABLES] [SEED]

Honest rows are single matrices and means over folds and seeds; errors are planted by kind in rows of single matrices.
With 0 tables only the speed is measured, and the recorded results on random tables stay."""
import json
import os
import platform
import sys
import time
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from radinet_nb.evidence.audit import audit_table
from radinet_nb.evidence.confusion import COUNTS, READINGS, auc_bounds, metric_ratio
from radinet_nb.evidence.printed import DETERMINED
from radinet_nb.evidence.solver import matrices

# the second accuses only a row that is known to hold the metrics of one class
ACCUSES = ('impossible', 'only as averages')
MEAN = 'possible as a mean over runs'


def show(value, decimals, how):
    "A number as some author would print it"
    if how == 'up': return str(Decimal(repr(value)).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP))
    if how == 'cut': return f'{int(value*10**decimals)/10**decimals:.{decimals}f}'
    return f'{round(value, decimals) if how == "round" else value:.{decimals}f}'


def metric(name, counts, reading):
    "A metric in floating point, with the usual 0 for 0/0"
    if name == 'auc':
        low, high = auc_bounds(*counts) if counts[0]+counts[2] and counts[1]+counts[3] else (0., 1.)
        return low + (high-low)*((sum(counts)*7919 % 1000)/1000)
    if name == 'mcc':
        tp, fp, fn, tn = map(float, counts)
        under = ((tp+fp)*(tp+fn)*(tn+fp)*(tn+fn))**.5
        return (tp*tn-fp*fn)/under if under else 0.
    over, under = metric_ratio(name, *counts, reading=reading)
    return over/under if under else 0.


def honest_table(rng):
    "A table without error: random test set, matrices, metrics, reading, unit, decimals, rounding; and its truth"
    n = int(np.exp(rng.uniform(np.log(8), np.log(1500))))
    positives = int(rng.integers(1, n))
    reading = str(rng.choice(READINGS, p=[.7, .1, .1, .1]))
    unit, how, known = str(rng.choice(['%', 'fraction'])), str(rng.choice(['float', 'round', 'up',
                                                                           'cut'])), int(rng.integers(3))
    names = [str(o) for o in rng.choice([*DETERMINED, 'auc'], rng.integers(2, 7), replace=False)]
    decimals = int(rng.integers(0, 3)) + 2*(unit == 'fraction')
    rows, truths = [], []
    for k in range(int(rng.integers(1, 4))):
        tp, fp = int(rng.binomial(positives, rng.uniform(0, 1))), int(rng.binomial(n-positives, rng.uniform(0, 1)))
        counts = (tp, fp, positives-tp, n-positives-fp)
        # AUC belongs to the positive class's operating point, whatever is averaged
        row = dict(test_set='one', model=f'm{k}')
        row |= {o: show(metric(o, counts, reading)*(100 if unit == '%' else 1), decimals, how) for o in names}
        if known == 0: row |= dict(positives=str(positives), negatives=str(n-positives))
        if known == 1: row |= dict(n=str(n))
        rows.append(row)
        truths.append(counts)
    return pd.DataFrame(rows), truths, dict(reading=reading, unit=unit, known=known, names=names)


def run(tables, seed):
    "Audit random honest tables: who was accused, which true matrix was not among the solutions"
    rng, alarms, missed, rows, checked, verdicts = np.random.default_rng(seed), [], [], 0, 0, {}
    start = time.perf_counter()
    for k in range(tables):
        table, truths, facts = honest_table(rng)
        got = audit_table(table, seconds=np.inf)
        rows += len(truths)
        for v in got.verdict: verdicts[v] = verdicts.get(v, 0)+1
        accused = got[got.verdict.isin(ACCUSES if facts['reading'] == 'positive' else ACCUSES[:1])]
        if len(accused): alarms.append(dict(table=k, facts=facts, rows=table.to_dict('records'), truth=truths,
                                            says=accused.says.tolist()))
        if facts['known'] == 0:
            for row,truth in zip(table.to_dict('records'), truths, strict=True):
                printed = {o: row[o] for o in facts['names'] if o != 'auc'}
                found = matrices(printed, int(row['positives']), int(row['negatives']), unit=facts['unit'],
                                 reading=facts['reading'])
                checked += 1
                if not (found[COUNTS].to_numpy() == np.array(truth)).all(1).any(): missed.append(dict(table=k, row=row,
                                                                                                      truth=truth))
    return dict(tables=tables, seed=seed, rows=rows, false_alarms=len(alarms), rows_whose_matrix_was_sought=checked,
                missed=len(missed),
                verdicts=verdicts, seconds=round(time.perf_counter()-start, 1), first_alarms=alarms[:3],
                first_missed=missed[:3])


def random_runs(rng, kind, k):
    "Matrices of k runs of one network: seeds on one test set, or folds of it, stratified or not"
    n = int(np.exp(rng.uniform(np.log(60), np.log(3000))))
    truth = np.arange(n) < max(k, int(n*rng.uniform(.1, .7)))
    if kind == 'seeds': folds = [truth]*k
    elif kind == 'stratified': folds = [truth[i::k] for i in range(k)]
    else: folds = np.array_split(rng.permutation(truth), k)
    good, spread = rng.uniform(.55, .97, 2), rng.uniform(0, .06)
    res = []
    for fold in folds:
        positives, negatives = int(fold.sum()), int((~fold).sum())
        right = np.clip(good+rng.normal(0, spread, 2), 0, 1)
        tp, fp = int(rng.binomial(positives, right[0])), int(rng.binomial(negatives, 1-right[1]))
        res.append((tp, fp, positives-tp, negatives-fp))
    return res, (int(truth.sum()), int((~truth).sum()))


def mean_row(rng, kind):
    "A row of means over three to ten runs, printed with two to four digits; and the class counts of the whole test set"
    runs, sizes = random_runs(rng, kind, int(rng.integers(3, 11)))
    reading = str(rng.choice(READINGS, p=[.7, .1, .1, .1]))
    names = [str(o) for o in rng.choice([*DETERMINED, 'auc'], rng.integers(3, 8), replace=False)]
    digits, percent = int(rng.integers(2, 5)), rng.random() < .5
    values = {o: np.mean([metric(o, run, reading) for run in runs]) for o in names}
    printed = {o: show(v*100 if percent else v, digits-2*percent, 'float') for o,v in values.items()}
    return printed, sizes, reading


def stated(rng, row, sizes, runs=None):
    "The row with class counts, their sum or neither, and what the table says of runs"
    known = int(rng.integers(3))
    counts = [dict(positives=str(sizes[0]), negatives=str(sizes[1])), dict(n=str(sum(sizes))), {}][known]
    return dict(model='a') | row | counts | (dict(runs=runs) if runs else {})


def honest_means(rows, seed):
    "Verdicts on honest means, by kind of mean, and how many are accused"
    rng, res = np.random.default_rng(seed), {}
    for kind in ('seeds', 'stratified', 'folds'):
        verdicts, alarms = {}, []
        for _ in range(rows):
            row, sizes, reading = mean_row(rng, kind)
            row = stated(rng, row, sizes, 'same set' if kind == 'seeds' and rng.random() < .3 else None)
            got = audit_table(pd.DataFrame([row]), seconds=np.inf).iloc[0]
            verdicts[got.verdict] = verdicts.get(got.verdict, 0)+1
            if got.verdict in (ACCUSES if reading == 'positive' else ACCUSES[:1]):
                alarms.append(dict(row=row, says=got.says))
        res[kind] = dict(rows=rows, false_alarms=len(alarms), verdicts=verdicts, first_alarms=alarms[:3])
    return res


def plant(rng, kind, row):
    "A row of percentages with one error of a kind; None where it would change nothing"
    row = dict(row)
    if kind == 'precision and recall exchanged':
        row['precision'], row['recall'] = row['recall'], row['precision']
    elif kind.endswith('of another run'):
        name, size = kind.split()[0], 6 if kind.startswith('accuracy') else 15
        row[name] = f'{float(row[name])+rng.choice([-1, 1])*rng.uniform(1, size):.2f}'
    elif kind == 'F1 as plain mean': row['f1'] = f'{(float(row["precision"])+float(row["recall"]))/2:.2f}'
    elif kind == 'two digits exchanged':
        name = str(rng.choice([o for o in row]))
        row[name] = row[name][1]+row[name][0]+row[name][2:] if row[name][1:2].isdigit() else row[name]
    return row


KINDS = ('precision and recall exchanged', 'accuracy of another run', 'kappa of another run', 'F1 as plain mean',
         'two digits exchanged')


def planted_errors(rows, seed):
    "Of errors in rows of single matrices: how many are noticed, by kind, and by what the table says of runs and counts"
    rng, res = np.random.default_rng(seed), {}
    for kind in KINDS:
        for runs in (None, 'same set', 'one'):
            for counted in (True, False):
                found = dict.fromkeys((*ACCUSES, 'only as a mean', 'exchange named', 'not noticed'), 0)
                for _ in range(rows):
                    (run, *_), sizes = random_runs(rng, 'seeds', 1)
                    honest = {o: f'{100*metric(o, run, "positive"):.2f}' for o in
                              ('accuracy', 'precision', 'recall', 'specificity', 'f1', 'kappa')}
                    row = plant(rng, kind, honest)
                    if row == honest: continue
                    row |= dict(positives=str(sizes[0]), negatives=str(sizes[1])) if counted else {}
                    got = audit_table(pd.DataFrame([row | (dict(runs=runs) if runs else {})]), seconds=np.inf).iloc[0]
                    word = got.verdict if got.verdict in ACCUSES else 'not noticed'
                    if got.verdict == MEAN: word = 'only as a mean'
                    if 'exchanged' in got.says and got.odd == 'precision, recall': word = 'exchange named'
                    found[word] += 1
                res[f'{kind}; runs: {runs or "not stated"}; {"class counts" if counted else "no counts"}'] = found
    return res


def timed_tables(seed, rows=100):
    "Seconds for a table of so many rows, with class counts, with totals only, and without counts"
    rng, res = np.random.default_rng(seed), {}
    for name,extra in (('class counts', dict(positives='278', negatives='285')), ('total only', dict(n='563')),
                       ('no counts', {})):
        table = []
        for k in range(rows):
            tp, fp = int(rng.binomial(278, rng.uniform(.4, .9))), int(rng.binomial(285, rng.uniform(.05, .4)))
            counts = (tp, fp, 278-tp, 285-fp)
            row = {o: f'{100*metric(o, counts, "positive"):.2f}' for o in ('accuracy', 'precision', 'recall', 'f1',
                                                                           'kappa', 'auc')}
            # every other row carries the kind of error that makes the search for the odd column run in full
            if k % 2: row['accuracy'] = f'{float(row["accuracy"])+2:.2f}'
            table.append(dict(model=f'm{k}') | row | extra)
        wall, cpu = time.perf_counter(), time.process_time()
        got = audit_table(pd.DataFrame(table), seconds=np.inf)
        res[name] = dict(seconds=round(time.perf_counter()-wall, 2), cpu_seconds=round(time.process_time()-cpu, 2),
                         noticed=int(got.verdict.isin((*ACCUSES, MEAN)).sum()))
    return res


if __name__ == '__main__':
    tables, seed = (int(o) for o in (sys.argv[1:]+['10000', '0'][len(sys.argv)-1:]))
    path = Path(__file__).with_suffix('.json')
    old = json.loads(path.read_text())
    res = {k: old[k] for k in ('random_tables', 'honest_means', 'planted_errors') if k in old}
    if tables:
        res = dict(random_tables=run(tables, seed), honest_means=honest_means(max(tables//10, 1), seed),
                   planted_errors=planted_errors(max(tables//200, 1), seed))
    res |= dict(table_of_100_rows=timed_tables(seed),
                machine=dict(python=platform.python_version(), numpy=np.__version__, cpus=os.cpu_count(),
                             system=platform.system(), load=round(os.getloadavg()[0], 1)))
    path.write_text(json.dumps(res, indent=1, default=str)+'\n')
    print(json.dumps(res, indent=1, default=str))
