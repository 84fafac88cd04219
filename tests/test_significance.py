"Tests between models against scipy, statsmodels, exhaustive counts and DeLong written out pair by pair"
import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from radinet_nb.analysis.counts import wilson
from radinet_nb.analysis.significance import adjust, auc_interval, delong, delong_test, mcnemar, permutation_test


def by_pairs(y, scores):
    "DeLong, DeLong and Clarke-Pearson (1988), equations 4 to 6, without ranks: every positive against every negative"
    m, n = (y == 1).sum(), (y == 0).sum()
    v10, v01 = np.zeros((len(scores), m)), np.zeros((len(scores), n))
    for k, s in enumerate(scores):
        for i, j in itertools.product(range(m), range(n)):
            a, b = s[y == 1][i], s[y == 0][j]
            psi = 1. if a > b else .5 if a == b else 0.
            v10[k, i] += psi/n
            v01[k, j] += psi/m
    return v10.mean(1), np.atleast_2d(np.cov(v10))/m + np.atleast_2d(np.cov(v01))/n


def test_delong_agrees_with_every_pair_counted_and_with_mann_whitney():
    rng = np.random.default_rng(0)
    for i in range(100):
        n = int(rng.integers(4, 25))
        y = np.r_[0, 0, 1, 1, rng.integers(0, 2, n-4)]
        scores = [rng.random((2, n)), rng.integers(0, 3, (2, n)).astype(float),
                  np.tile(y, (2, 1)) + rng.integers(0, 2, (2, n))][i % 3]
        auc, cov = delong(y, scores)
        expected, covariance = by_pairs(y, scores)
        assert auc == pytest.approx(expected) and cov == pytest.approx(covariance, abs=1e-12)
        u = stats.mannwhitneyu(scores[0][y == 1], scores[0][y == 0]).statistic
        assert auc[0] == pytest.approx(u/((y == 1).sum()*(y == 0).sum()))


def frame(y, p):
    row = np.arange(len(y))
    return pd.DataFrame(dict(patient=row, study=row, target=y, probability=np.asarray(p, float)))


DEGENERATE = [([1, 1, 1], [.1, .2, .3]), ([0, 0], [.1, .2]), ([1], [.5]), ([], []), ([0, 1], [.2, .8]),
              ([0, 0, 1], [.1, .2, .3])]


@pytest.mark.parametrize(('y', 'p'), DEGENERATE)
def test_where_there_is_no_interval_there_is_a_reason(y, p):
    one = auc_interval(frame(y, p))
    assert np.isnan(one['low']) and np.isnan(one['high']) and one['note']
    both = delong_test(frame(y, p), frame(y, np.asarray(p)[::-1]))
    assert np.isnan(both['low']) and np.isnan(both['p']) and both['note']


def test_tied_scores_are_a_coin():
    y = np.arange(20) % 2
    one = auc_interval(frame(y, np.full(20, .5)))
    assert one['value'] == .5 and np.isnan(one['low']) and 'variance' in one['note']
    same = delong_test(frame(y, np.full(20, .5)), frame(y, np.full(20, .7)))
    assert same['difference'] == 0 and same['p'] == 1 and same['note']


def test_exact_mcnemar_agrees_with_statsmodels():
    rng = np.random.default_rng(1)
    for _ in range(50):
        n = int(rng.integers(1, 40))
        y = rng.integers(0, 2, n)
        mine = mcnemar(frame(y, rng.random(n)), frame(y, rng.random(n)))
        table = [[0, mine['a_only']], [mine['b_only'], 0]]
        expected = sm_mcnemar(table, exact=True).pvalue if mine['a_only'] + mine['b_only'] else 1
        assert mine['p'] == pytest.approx(expected)


@pytest.mark.parametrize('metric', ['auc', 'accuracy', 'kappa'])
def test_permutation_p_is_near_that_of_all_permutations(metric):
    "Eight patients can be swapped in 256 ways: all of them, each difference computed by scikit-learn"
    from sklearn import metrics as sk
    rng = np.random.default_rng(2)
    y = np.array([0, 1]*4)
    a, b = np.clip(.5 + .3*(y-.5) + rng.normal(0, .2, 8), 0, 1), np.clip(rng.random(8), 0, 1)
    ranks = stats.rankdata(a), stats.rankdata(b)
    def value(s, call): return dict(auc=lambda: sk.roc_auc_score(y, s), accuracy=lambda: sk.accuracy_score(y, call),
                                    kappa=lambda: sk.cohen_kappa_score(y, call))[metric]()
    def difference(swap):
        first, second = (np.where(swap, ranks[1-i], ranks[i]) for i in (0, 1))
        calls = [np.where(swap, (b, a)[i] >= .5, (a, b)[i] >= .5) for i in (0, 1)]
        return value(first, calls[0]) - value(second, calls[1])
    every = np.abs([difference(np.array(o, bool)) for o in itertools.product([0, 1], repeat=8)])
    mine = permutation_test(frame(y, a), frame(y, b), metric, permutations=4000)
    assert abs(mine['difference']) == pytest.approx(every[0])
    assert mine['p'] == pytest.approx((every >= every[0]-1e-12).mean(), abs=.03)


def test_corrections_and_wilson_agree_with_statsmodels():
    rng = np.random.default_rng(3)
    for _ in range(30):
        p = rng.random(int(rng.integers(1, 9)))**2
        for name, theirs in (('holm', 'holm'), ('bonferroni', 'bonferroni'), ('benjamini-hochberg', 'fdr_bh')):
            assert adjust(p, name) == pytest.approx(multipletests(p, method=theirs)[1])
        n = int(rng.integers(1, 50))
        k = int(rng.integers(0, n+1))
        assert np.array(wilson(k, n)).tolist() == pytest.approx(proportion_confint(k, n, method='wilson'), abs=1e-12)
    assert np.isnan(adjust([np.nan, .01])).tolist() == [True, False] and adjust([np.nan, .01])[1] == .01
