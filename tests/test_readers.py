"Reader statistics against brute force, printed results and real multi-reader data"
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from radinet_nb.analysis.misclassification import misclassified, regions
from radinet_nb.analysis.multireader import influence, merits, obuchowski_rockette
from radinet_nb.analysis.ratings import combine_views
from radinet_nb.analysis.reader_agreement import agreement
from radinet_nb.analysis.readers import evaluate_readers, non_inferiority
from radinet_nb.errors import InputError

DATA = Path(os.environ.get('RADINET_DATA', Path(__file__).parents[1]/'..'/'shared'/'data'))
MERIT = dict(auc=sk.roc_auc_score, sensitivity=sk.recall_score, accuracy=sk.accuracy_score,
             balanced_accuracy=sk.balanced_accuracy_score, specificity=lambda y, x: sk.recall_score(1-y, 1-x))


def study(seed, modalities=2, readers=4, cases=60, binary=False):
    rng = np.random.default_rng(seed)
    truth = np.arange(cases) % 2
    case, skill = truth + rng.normal(0, .7, cases), rng.normal(0, .2, readers)
    rows = []
    for m in range(modalities):
        for r in range(readers):
            x = (1+skill[r]+rng.normal(0, .1))*case + rng.normal(0, .8, cases)
            rating = (x > .5).astype(int) if binary else x
            rows.append(pd.DataFrame(dict(modality=m, reader=r, case=np.arange(cases), truth=truth, rating=rating)))
    return pd.concat(rows, ignore_index=True)


@pytest.mark.parametrize('merit', list(MERIT))
def test_jackknife_by_influence_is_leave_one_out(merit):
    d = study(1, 1, 2, binary=merit != 'auc')
    table = d.pivot(index='case', columns='reader', values='rating')
    y = d.drop_duplicates('case').truth.to_numpy()
    used = dict(sensitivity=y == 1, specificity=y == 0).get(merit, y >= 0)
    n = int(used.sum())
    keep = ~np.eye(len(y), dtype=bool)[used]
    drop = np.array([[MERIT[merit](y[k], table[r].to_numpy()[k]) for k in keep] for r in table])
    drop = drop-drop.mean(1, keepdims=True)
    expected = (n-1)/n*drop@drop.T
    found = [influence(y, table[r].to_numpy(float), merit, 'jackknife') for r in table]
    d = np.stack([o for _, o in found])
    tolerance = .05 if merit == 'balanced_accuracy' else 1e-9  # two rates share one factor there
    assert d@d.T == pytest.approx(expected, rel=tolerance)
    assert [v for v, _ in found] == pytest.approx([MERIT[merit](y, table[r]) for r in table])


def test_printed_analysis_of_van_dyke():
    "From areas and error covariances as MRMCaov's guide prints them to its other digits"
    t, r = 2, 5
    values = pd.DataFrame([[.9196457, .8587762, .9038647, .9731079, .8297907],
                           [.9478261, .9053140, .9217391, .9993559, .9299517]])
    same_t, same_r = np.kron(np.eye(t), np.ones((r, r))), np.kron(np.ones((t, t)), np.eye(r))

    def matrix(error, c1, c2, c3): return c3 + (c2-c3)*same_t + (c1-c3)*same_r + (error-c1-c2+c3)*same_t*same_r
    unbiased = obuchowski_rockette(values, matrix(.0007883925, .0003416706, .0003390650, .0002356148))
    assert [unbiased['test'][o] for o in ('F', 'df2', 'p')] == pytest.approx([4.489614, 15.03418, .0511618], rel=1e-5)
    row = unbiased['differences'].iloc[0]
    assert [row.low, row.high] == pytest.approx([-.0878519409, .0002512968], abs=1e-7)
    fixed = obuchowski_rockette(values, matrix(.0008022883, .0003466137, .0003440748, .0002390284), 'fixed')
    row = fixed['differences'].iloc[0]
    assert [row.se, row.low, row.high, row.p] == pytest.approx([.01871748, -.08048591, -.00711473, .01927984], rel=1e-5)


def test_raw_ratings_of_van_dyke():
    "From the 1,140 ratings, data of the package MRMCaov that we may not copy, to the digits that its guide prints"
    path = DATA/'readers_van_dyke'/'VanDyke.csv'
    if not path.exists():
        pytest.skip('no shared/data/readers_van_dyke/VanDyke.csv: write it from the R package MRMCaov to run this')
    d = pd.read_csv(path).rename(columns=dict(treatment='modality'))[['reader', 'modality', 'case', 'truth', 'rating']]
    found = obuchowski_rockette(*merits(d))
    printed = dict(error=.0007921325, cov1=.0003420090, cov2=.0003395265, cov3=.0002358497)
    assert {o: round(found['components'][o], 10) for o in printed} == printed
    assert [found['test'][o] for o in ('F', 'df2', 'p')] == pytest.approx([4.484854, 15.06611, .05123303], rel=1e-6)
    jackknife = obuchowski_rockette(*merits(d, covariance='jackknife'), readers='fixed')
    assert [jackknife['test'][o] for o in ('X2', 'p')] == pytest.approx([5.475953, .01927984], rel=1e-6)
    calls = obuchowski_rockette(*merits(d.assign(rating=(d.rating >= 3).astype(int)), 'sensitivity', 'jackknife'))
    assert [calls['test'][o] for o in ('F', 'df2', 'p')] == pytest.approx([6.689493, 15.71732, .02008822], rel=1e-6)


def test_false_alarms_are_as_rare_as_stated():
    p = np.array([obuchowski_rockette(*merits(study(i)))['test']['p'] for i in range(150)])
    assert .01 <= (p <= .05).mean() <= .1


def test_a_patient_with_two_identical_cases_is_one_case():
    d = study(3).assign(patient=lambda o: o.case)
    twice = pd.concat([d, d.assign(case=d.case+1000)])
    values, cov = merits(d)
    again, clustered = merits(twice)
    assert again.to_numpy() == pytest.approx(values.to_numpy())
    assert clustered.to_numpy() == pytest.approx(cov.to_numpy(), rel=.04)
    assert (np.diag(merits(twice.drop(columns='patient'))[1]) < .6*np.diag(cov)).all()


def test_views_combine_as_the_paper_says():
    rng = np.random.default_rng(0)
    d = pd.DataFrame([(r, c, v, c % 2) for r in 'AB' for c in range(30) for v in 'fl'],
                     columns=['reader', 'case', 'view', 'truth'])
    d['rating'] = rng.integers(0, 2, len(d))
    both = d.pivot(index=['reader', 'case'], columns='view', values='rating').reset_index()
    assert combine_views(d, 'conjunction').rating.tolist() == (both.f & both.l).tolist()
    assert combine_views(d, 'disjunction').rating.tolist() == (both.f | both.l).tolist()


def test_degenerate_readings_give_nan_and_a_reason():
    d = study(0, 1, 3, binary=True).drop(columns='modality')
    same = agreement(d.assign(rating=1), resamples=20)
    kappa = same[same.measure == 'kappa']
    assert kappa.value.isna().all() and (kappa.note != '').all()
    one_class = evaluate_readers(d[d.truth == 1], ('accuracy', 'specificity'), resamples=20).set_index('metric').value
    assert one_class['specificity'].isna().all() and one_class['accuracy'].notna().all()
    lone = d[d.reader == 0]
    verdict = non_inferiority(lone, lone, .05, 'accuracy')
    assert np.isnan(verdict['low']) and verdict['verdict'] == 'undefined' and verdict['note']
    assert len(misclassified(d.assign(rating=d.truth))) == 0


BAD = [dict(rating=np.nan), dict(truth=2), dict(case=1), dict(rating=.5)]


@pytest.mark.parametrize('bad', BAD)
def test_bad_readings_are_refused_in_one_line(bad):
    with pytest.raises(InputError) as e: agreement(study(0, 1, binary=True).drop(columns='modality').assign(**bad))
    assert '\n' not in str(e.value)


def test_regions_count_every_error_once():
    d = study(5, 1, 4, binary=True).drop(columns='modality')
    wrong = misclassified(d)
    parts = regions(wrong)
    assert parts.cases.sum() == len(wrong)
    for r in wrong: assert parts.cases[parts[r]].sum() == (d[d.reader == r].rating != d[d.reader == r].truth).sum()


def test_printed_accuracies_of_real_pathologists():
    "Tabata 2019 prints accuracies of 0.632 to 0.843; the released data give each end one unit of the last digit less"
    path = DATA/'readers_mitotic'/'dfClassify20180627.csv'
    if not path.exists():
        pytest.skip('no shared/data/readers_mitotic beside the checkout; set RADINET_DATA to run this')
    observers = [f'observer.{i}' for i in range(1, 6)]
    d = pd.read_csv(path).melt(['targetID', 'modalityID', 'truth'], observers, 'reader', 'rating')
    d = d.rename(columns=dict(targetID='case', modalityID='modality'))
    values, cov = merits(d, 'balanced_accuracy')
    for (m, r), g in d.groupby(['modality', 'reader']):
        assert values.loc[m, r] == pytest.approx(sk.balanced_accuracy_score(g.truth, g.rating))
    assert [values.min().min(), values.max().max()] == pytest.approx([.632, .843], abs=.0012)


def test_printed_difference_of_viper():
    "Gallas 2019 prints 0.047 (standard error 0.023) as the largest difference in area"
    path = DATA/'readers_viper'/'viperObs.csv'
    if not path.exists(): pytest.skip('no shared/data/readers_viper beside the checkout; set RADINET_DATA to run this')
    d = pd.read_csv(path).query('subStudyLabel=="challengeHighP"')
    d = d.rename(columns=dict(readerID='reader', caseID='case', modalityID='modality', score='rating',
                              cancerStatus455='truth'))
    values, cov = merits(d)
    for (m, r), g in d.groupby(['modality', 'reader']):
        assert values.loc[m, r] == pytest.approx(sk.roc_auc_score(g.truth, g.rating))
    counts = d.groupby(['modality', 'reader']).truth.agg(pos='sum', n='size')
    pairs = (counts.pos*(counts.n-counts.pos)).unstack('reader')
    weighted = (values*pairs).sum(axis=1)/pairs.sum(axis=1)
    assert round(weighted['SFM']-weighted['FFDM'], 3) == .047
    assert obuchowski_rockette(values, cov)['differences'].se[0] == pytest.approx(.023, abs=.0015)


def test_perfect_agreement_has_an_interval_that_is_no_point():
    truth = np.arange(40) % 2
    rows = pd.concat([pd.DataFrame(dict(reader=o, case=np.arange(40), truth=truth, rating=truth)) for o in 'AB'])
    pairs = agreement(rows, 100)[:-1]
    assert (pairs.value == 1).all() and (pairs.low < 1).all() and (pairs.high == 1).all()
    silent = agreement(rows.assign(rating=0), 100)[:-1].set_index('measure')
    assert silent.low['agreement'] < 1 and np.isnan(silent.value['positive']) and silent.note['positive']


@pytest.mark.parametrize('merit', ['accuracy', 'sensitivity'])
def test_jackknife_leaves_out_patients_with_all_their_cases(merit):
    rng = np.random.default_rng(4)
    who, truth = np.sort(rng.integers(0, 25, 90)), rng.integers(0, 2, 90)
    call = np.where(rng.random(90) < .8, truth, 1-truth).astype(float)
    own = who[truth == 1] if merit == 'sensitivity' else who
    def value(kept): return (call == truth)[kept & ((truth == 1) | (merit == 'accuracy'))].mean()
    left = np.array([value(who != o) for o in np.unique(own)])
    g, full = len(left), value(who >= 0)
    _, d = influence(truth, call, merit, 'jackknife', who)
    assert (np.bincount(who, d)**2).sum() == pytest.approx((g-1)/g*((left-full)**2).sum())
