"The ledger: every claim can be judged, by the right vocabulary, from what runs left and from nothing else"
import numpy as np
import pandas as pd
import pytest

from radinet_nb.data.notebooks import paper_folders
from radinet_nb.results.claim_tests import TESTS
from radinet_nb.results.claims import count_verdicts, judge_claims, read_claims
from radinet_nb.results.verdicts import VERDICTS, graded
from radinet_nb.workflow.papers import paper_module

CONTRADICTED = VERDICTS[3]


def checks(paper): return getattr(paper_module(paper, 'checks'), 'CHECKS', {})


@pytest.fixture(scope='module')
def audited(): return pd.concat([judge_claims(o, checks=checks(o)) for o in paper_folders()], ignore_index=True)


def test_the_ledger_is_whole():
    rows = pd.concat([read_claims(o).assign(folder=o) for o in paper_folders()])
    assert rows.id.is_unique and rows.claim.str.len().gt(10).all()
    assert (rows.paper == rows.folder).all() and len(rows) == 116
    assert set(rows.test) <= set(TESTS) | {'audit'}


def test_without_runs_only_the_audit_decides(audited):
    assert set(audited.verdict) <= {CONTRADICTED, 'reproduced', 'not testable on this data', 'not run yet'}
    assert (audited.verdict == 'reproduced').sum() == 3 # sums, and two round numbers
    assert (audited.verdict == CONTRADICTED).sum() == 14
    assert audited.effect.isna().all()
    assert count_verdicts(audited).to_numpy().sum() == len(audited)


def test_a_verdict_follows_the_predictions_and_can_turn():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    base = pd.DataFrame(dict(collection='synthetic', patient=[f'p{i//2}' for i in range(300)],
                             study=[f's{i}' for i in range(300)],
                             view='pair', body_part='wrist', split=np.where(np.arange(300) < 100, 'valid', 'test'),
                             target=y))
    sharp = base.assign(run='a', probability=np.clip(y*.6+.2+rng.normal(0, .15, 300), 0, 1))
    blunt = base.assign(run='b', probability=rng.random(300))
    for good, bad, verdict in ((sharp, blunt, 'reproduced'), (blunt, sharp, 'not reproduced')):
        evidence = dict(predictions={'wrist/RadiNet_wrist': good, 'wrist/WristNet': bad}, resamples=200,
                        runs={'wrist/RadiNet_wrist': 'run-1', 'wrist/WristNet': 'run-2'})
        got = judge_claims('karam2021', evidence, checks('karam2021')).set_index('id')
        row = got.loc['karam-fig10-WristNet-accuracy']
        assert row.verdict == verdict and row.low <= row.effect <= row.high
        assert row.runs == 'run-1, run-2'
        assert got.verdict['karam-level-accuracy'] == 'not testable on this data'
        assert got.verdict['karam-fig10-ImageNet_wrist-auc'] == 'not run yet'


def test_grades():
    assert graded(.05, .01, .09, .0, ())['verdict'] == 'reproduced'
    assert graded(.05, .01, .06, .2, ())['verdict'] == 'direction only'
    assert graded(.0, -.1, .1, .0, ())['verdict'] == 'not reproduced'
    assert graded(float('nan'), 0, 0, 0, ())['verdict'] == 'not testable on this data'


def test_a_level_is_decided_on_the_papers_own_collections_only():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    frame = pd.DataFrame(dict(collection='hospital', patient=[f'p{i}' for i in range(300)],
                              study=[f's{i}' for i in range(300)], view='pair',
                              split=np.where(np.arange(300) < 100, 'valid', 'test'), target=y,
                              probability=np.clip(y*.6+.2, 0, 1)))
    evidence = dict(predictions={'wrist/RadiNet_wrist': frame}, resamples=50)
    for own, verdict in ((set(), 'not testable on this data'), ({'wrist/RadiNet_wrist'}, 'reproduced')):
        got = judge_claims('karam2021', evidence | dict(paper_data=own), checks('karam2021')).set_index('id')
        assert got.verdict['karam-level-accuracy'] == verdict
