"The metrics against independent implementations, and what a paper says against what we carry"
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from radinet_nb.analysis.calibration import calibration_line
from radinet_nb.analysis.froc import froc, recall_at, tally
from radinet_nb.analysis.decisions import choose_threshold
from radinet_nb.analysis.metrics import evaluate
from radinet_nb.analysis.multiclass import evaluate_classes
from radinet_nb.analysis.significance import delong
from radinet_nb.errors import InputError

DATA = Path(os.environ.get('RADINET_DATA', Path(__file__).parents[1]/'..'/'shared'/'data'))


def test_published_values_are_the_shared_ones():
    from radinet_nb.evidence.published import read_published
    shared = DATA.parent/'published'/'published.csv'
    if not shared.exists():
        pytest.skip(f'no {shared.name} beside the shared data: nothing to compare the package copy with')
    for paper, rows in pd.read_csv(shared, keep_default_na=False).groupby('paper'):
        pd.testing.assert_frame_equal(read_published(paper), rows.reset_index(drop=True), check_dtype=False)


def brute_froc(detections, truths, rates, hit):
    "Recall at each rate by looping over every threshold, image, detection and lesion"
    best = [0.]*len(rates)
    for t in sorted({s for _, scores in detections for s in scores}):
        found = false = 0
        for (boxes, scores), lesions in zip(detections, truths, strict=True):
            kept = [b for b, s in zip(boxes, scores, strict=True) if s >= t]
            found += sum(any(hit(b, o) for b in kept) for o in lesions)
            false += sum(not any(hit(b, o) for o in lesions) for b in kept)
        for i, rate in enumerate(rates):
            if false <= rate*len(truths) + 1e-9: best[i] = max(best[i], found/sum(map(len, truths)))
    return best


def inside(b, o): return o[0] <= (b[0]+b[2])/2 <= o[2] and o[1] <= (b[1]+b[3])/2 <= o[3]


def near(b, o): return np.hypot((b[0]+b[2]-o[0]-o[2])/2, (b[1]+b[3]-o[1]-o[3])/2) <= 8


def overlaps(b, o):
    w, h = (min(b[i+2], o[i+2]) - max(b[i], o[i]) for i in (0, 1))
    common = max(w, 0)*max(h, 0)
    return common/((b[2]-b[0])*(b[3]-b[1]) + (o[2]-o[0])*(o[3]-o[1]) - common) >= .3


RULES = [('centre', None, inside, 600), ('iou', .3, overlaps, 200), ('distance', 8, near, 200)]


@pytest.mark.parametrize(('rule', 'limit', 'hit', 'cases'), RULES)
def test_froc_agrees_with_brute_force(rule, limit, hit, cases):
    rng, rates = np.random.default_rng(len(rule)), (0., .1, .25, .5, 1., 3.)

    def boxes(k):
        corner = rng.integers(0, 25, (k, 2))
        return np.column_stack([corner, corner + rng.integers(4, 14, (k, 2))]).tolist()
    for _ in range(cases):
        images = rng.integers(1, 7)
        detections = [(boxes(k), (rng.integers(1, 6, k)/5).tolist()) for k in rng.integers(0, 5, images)]
        truths = [boxes(k) for k in rng.integers(0, 3, images)]
        truths[0] = truths[0] or boxes(1)
        mine = froc(tally(detections, truths, np.zeros(images), rule, limit), rates)
        assert mine.value[1:].tolist() == pytest.approx(brute_froc(detections, truths, rates, hit))
        assert mine.value[0] == pytest.approx(mine.value[1:].mean())


def test_froc_bootstrap_weights_are_repeated_images():
    rng = np.random.default_rng(2)
    truths = [[[5, 5, 15, 15]] if i % 2 else [] for i in range(12)]
    detections = [(np.column_stack([c := rng.integers(0, 15, (3, 2)), c + 6]), rng.random(3).round(1))
                  for _ in range(12)]
    counts = tally(detections, truths)
    rows = rng.integers(0, 12, 12)
    by_rows = froc(tally([detections[i] for i in rows], [truths[i] for i in rows], np.zeros(12))).value
    w = np.bincount(rows, minlength=12)[None].astype(float)
    at = recall_at(w@counts.false/12, w@counts.hits/(w@counts.lesions)[:, None])
    assert by_rows[1:].tolist() == pytest.approx(at[0].tolist())


def random_predictions(rng, n):
    y = rng.integers(0, 2, n)
    patient = rng.integers(0, max(1, n//2), n)
    probability = rng.choice([rng.random(n), rng.random(n).round(1), np.full(n, .5)])
    return pd.DataFrame(dict(run='a', patient=patient, study=np.arange(n), view=np.arange(n), target=y,
                             probability=probability))


def sklearn_value(metric, y, p, called):
    if len(y) == 0: return np.nan
    both = lambda o: len(set(o)) == 2
    return dict(
        accuracy=lambda: sk.accuracy_score(y, called),
        balanced_accuracy=lambda: sk.balanced_accuracy_score(y, called) if both(y) else np.nan,
        brier=lambda: np.mean((p-y)**2),
        precision=lambda: sk.precision_score(y, called) if called.any() else np.nan,
        recall=lambda: sk.recall_score(y, called) if y.any() else np.nan,
        specificity=lambda: sk.recall_score(1-y, 1-called) if (y == 0).any() else np.nan,
        npv=lambda: sk.precision_score(1-y, 1-called) if (called == 0).any() else np.nan,
        f1=lambda: sk.f1_score(y, called) if y.any() or called.any() else np.nan,
        macro_f1=lambda: sk.f1_score(y, called, average='macro') if len(set(y) | set(called)) == 2 else np.nan,
        kappa=lambda: sk.cohen_kappa_score(y, called) if len(set(y) | set(called)) == 2 else np.nan,
        auc=lambda: sk.roc_auc_score(y, p) if both(y) else np.nan,
        average_precision=lambda: sk.average_precision_score(y, p) if y.any() else np.nan)[metric]()


def test_metrics_agree_with_scikit_learn_on_random_and_degenerate_data():
    rng = np.random.default_rng(0)
    cases = [random_predictions(rng, n) for n in [0, 1, 1, 2, 2, 3, 3, 5, 8, 20, 60]*12]
    cases += [o.assign(target=c) for o in cases[:33] for c in (0, 1)]
    cases += [o.assign(probability=o.target*1.) for o in cases[:33]]
    for d in cases:
        y, p = d.target.to_numpy(int), d.probability.to_numpy(float)
        t = float(rng.choice([0, .3, .5, 1]))
        for r in evaluate(d, t, resamples=10).itertuples():
            if r.metric == 'calibration_error': continue
            expected = sklearn_value(r.metric, y, p, (p >= t).astype(int))
            assert r.value == pytest.approx(expected, nan_ok=True, abs=1e-12), r.metric
            assert not np.isnan(expected) or (r.note and r.method == 'none' and np.isnan(r.low) and np.isnan(r.high))
            assert np.isnan(r.low) == np.isnan(r.high) and not (np.isnan(r.low) and not r.note)


def test_multi_class_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    for _ in range(20):
        y, p = rng.integers(0, 4, 50), rng.dirichlet([1]*4, 50)
        d = pd.DataFrame(p, columns=[f'p_{o}' for o in 'abcd']).assign(target=y, patient=np.arange(50)//3)
        mine, call = evaluate_classes(d, resamples=20).set_index('metric').value, p.argmax(1)
        assert mine.accuracy == pytest.approx(sk.accuracy_score(y, call))
        assert mine.macro_f1 == pytest.approx(sk.f1_score(y, call, average='macro'))
        assert mine.macro_recall == pytest.approx(sk.balanced_accuracy_score(y, call))
        assert mine.kappa == pytest.approx(sk.cohen_kappa_score(y, call))


def test_threshold_is_the_best_of_all_cuts():
    rng = np.random.default_rng(2)
    rules = dict(youden=sk.balanced_accuracy_score, accuracy=sk.accuracy_score, f1=sk.f1_score)
    for rule, score in rules.items():
        for _ in range(50):
            d = random_predictions(rng, 25)
            if d.target.nunique() < 2: continue
            y, p = d.target.to_numpy(), d.probability.to_numpy()
            best = max(score(y, p >= t) for t in [*np.unique(p), 1.1])
            assert score(y, p >= choose_threshold(d, rule)) == pytest.approx(best)


def test_delong_and_calibration_agree_with_statsmodels_and_jackknife():
    import statsmodels.api as sm
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 400)
    p = 1/(1+np.exp(-(1.5*(y-.5) + rng.normal(0, 1, 400))))
    line = calibration_line(pd.DataFrame(dict(target=y, probability=p)))
    fit = sm.Logit(y, sm.add_constant(np.log(p/(1-p)))).fit(disp=0).params
    assert [line['intercept'], line['slope']] == pytest.approx(list(fit), abs=1e-6)
    # the jackknife over patients and Obuchowski's clustered variance estimate the same thing
    who = np.arange(400)//4
    auc, cov = delong(y, p, who)
    drop = np.array([sk.roc_auc_score(y[who != o], p[who != o]) for o in range(100)])
    assert cov[0, 0] == pytest.approx(99/100*((drop-drop.mean())**2).sum(), rel=.1)


BAD = [dict(target=2), dict(probability=1.5), dict(probability=np.nan), dict(target=None), dict(run=['a', 'b']*5)]


@pytest.mark.parametrize('bad', BAD)
def test_bad_predictions_are_refused_in_one_line(bad):
    d = random_predictions(np.random.default_rng(0), 10).assign(**bad)
    with pytest.raises(InputError) as e: evaluate(d)
    assert '\n' not in str(e.value)
