"The ledger: every claim can be judged, by the right vocabulary, from what runs left and from nothing else"
import numpy as np
import pandas as pd
import pytest

from radinet_nb.results.claims import CHECKS, TESTS, VERDICTS, graded, headline, judge_claims, read_claims, settings_of

CONTRADICTED = VERDICTS[3]


@pytest.fixture(scope='module')
def audited(): return judge_claims()


def test_the_ledger_is_whole():
    rows = read_claims()
    assert rows.id.is_unique and rows.claim.str.len().gt(10).all()
    assert set(rows.paper) == {'karam2021', 'sood2021', 'alammar2023', 'lu2022'}
    assert set(rows.test) <= set(TESTS)
    assert {settings_of(o)['check'] for o in rows.settings[rows.test == 'audit']} == set(CHECKS)


def test_without_runs_only_the_audit_decides(audited):
    assert set(audited.verdict) <= {CONTRADICTED, 'reproduced', 'not testable on this data', 'not run yet'}
    assert (audited.verdict == 'reproduced').sum() == 3  # the sums of lu2022, and two round numbers that a reader must grant
    assert (audited.verdict == CONTRADICTED).sum() == 14
    assert audited.effect.isna().all()
    assert headline(audited).to_numpy().sum() == len(audited)


def test_a_verdict_follows_the_predictions_and_can_turn():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    base = pd.DataFrame(dict(collection='synthetic', patient=[f'p{i//2}' for i in range(300)], study=[f's{i}' for i in range(300)], view='pair',
                             body_part='wrist', split=np.where(np.arange(300) < 100, 'valid', 'test'), target=y))
    sharp = base.assign(run='a', probability=np.clip(y*.6+.2+rng.normal(0, .15, 300), 0, 1))
    blunt = base.assign(run='b', probability=rng.random(300))
    for good, bad, verdict in ((sharp, blunt, 'reproduced'), (blunt, sharp, 'not reproduced')):
        got = judge_claims(dict(predictions={'wrist/RadiNet_wrist': good, 'wrist/WristNet': bad}, resamples=200,
                                runs={'wrist/RadiNet_wrist': 'run-1', 'wrist/WristNet': 'run-2'}), 'karam2021').set_index('id')
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
