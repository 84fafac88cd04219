"The ledger: every claim can be judged, by the right vocabulary, from what runs left and from nothing else"
import numpy as np
import pandas as pd
import pytest

from radinet_nb.data.notebooks import paper_folders
from radinet_nb.results.claim_tests import TESTS
from radinet_nb.results.claims import count_verdicts, judge_claims, read_claims
from radinet_nb.results.verdicts import CONTRADICTED, graded, limited
from radinet_nb.workflow.papers import paper_module


def checks(paper): return getattr(paper_module(paper, 'checks'), 'CHECKS', {})


def judged(evidence):
    "Claims of karam2021 by id; what its printed numbers say, another test asks"
    quick = dict.fromkeys(checks('karam2021'), lambda: (True, ''))
    return judge_claims('karam2021', evidence, quick).set_index('id')


@pytest.fixture(scope='module')
def audited(): return pd.concat([judge_claims(o, checks=checks(o)) for o in paper_folders()], ignore_index=True)


def test_the_ledger_is_whole():
    rows = pd.concat([read_claims(o).assign(folder=o) for o in paper_folders()])
    assert rows.id.is_unique and rows.claim.str.len().gt(10).all()
    assert (rows.paper == rows.folder).all() and len(rows) == 121
    assert set(rows.test) <= set(TESTS) | {'audit'}


def test_without_runs_only_the_audit_decides(audited):
    assert set(audited.verdict) <= {CONTRADICTED, 'reproduced', 'not testable on this data', 'not run yet'}
    assert (audited.verdict == 'reproduced').sum() == 3 # sums, and two round numbers
    assert (audited.verdict == CONTRADICTED).sum() == 14
    assert audited.effect.isna().all()
    assert count_verdicts(audited).to_numpy().sum() == len(audited)


def trained(y, noise, seeds=3):
    "Predictions of several trainings of one model on the same cases; None: it guesses"
    base = pd.DataFrame(dict(collection='hospital', patient=[f'p{i}' for i in range(len(y))],
                             study=[f's{i}' for i in range(len(y))], view='pair', body_part='wrist',
                             split=np.where(np.arange(len(y)) < 100, 'valid', 'test'), target=y))
    def one(seed):
        own = np.random.default_rng([seed, round(100*(noise or 9))])
        p = own.random(len(y)) if noise is None else np.clip(y*.6+.2+own.normal(0, noise, len(y)), 0, 1)
        return base.assign(probability=p, seed=seed)
    return pd.concat([one(o) for o in range(seeds)], ignore_index=True)


TRUTH = np.random.default_rng(1).integers(0, 2, 300)


@pytest.mark.parametrize(('seeds', 'won', 'lost'), [(3, 'reproduced', 'not reproduced'),
                                                    (2, 'direction only', 'undecided'),
                                                    (1, 'direction only', 'undecided')])
def test_a_verdict_follows_the_predictions_and_can_turn(seeds, won, lost):
    sharp, blunt = trained(TRUTH, .15, seeds), trained(TRUTH, None, seeds)
    for good, bad, verdict in ((sharp, blunt, won), (blunt, sharp, lost)):
        evidence = dict(predictions={'wrist/RadiNet_wrist': good, 'wrist/WristNet': bad}, resamples=200,
                        runs={'wrist/RadiNet_wrist': 'run-1', 'wrist/WristNet': 'run-2'})
        got = judged(evidence)
        row = got.loc['karam-fig10-WristNet-accuracy']
        assert row.verdict == verdict and row.low <= row.effect <= row.high
        assert row.runs == 'run-1, run-2'
        assert got.verdict['karam-level-accuracy'] == 'not testable on this data'
        assert got.verdict['karam-fig10-ImageNet_wrist-auc'] == 'not run yet'


def test_no_claim_is_decided_against_a_model_that_did_not_train_or_on_few_cases():
    sharp, blunt = trained(TRUTH, .15), trained(TRUTH, None)
    def verdict(rows, **more):
        frames = {'wrist/RadiNet_wrist': sharp, 'wrist/WristNet': blunt}
        evidence = dict(predictions={k: v[rows(v)] for k, v in frames.items()}, resamples=50) | more
        got = judged(evidence)
        return got.loc['karam-fig10-WristNet-kappa']
    assert verdict(lambda d: d.seed >= 0).verdict == 'reproduced'
    stuck = verdict(lambda d: d.seed >= 0, untrained={'wrist/WristNet': 'WristNet did not train: one answer'})
    assert stuck.verdict == 'undecided' and 'did not train: one answer' in stuck.says
    few = verdict(lambda d: (d.split == 'valid') | (d.study.str[1:].astype(int) < 120))
    assert few.verdict == 'undecided' and 'too few cases' in few.says


def test_grades():
    assert graded((.05, .01, .09), .0, ())['verdict'] == 'reproduced'
    assert graded((.05, .01, .06), .2, ())['verdict'] == 'direction only'
    assert graded((.0, -.1, .1), .0, ())['verdict'] == 'undecided'
    assert graded((-.05, -.1, .06), .05, ())['verdict'] == 'undecided' # a wrong sign refutes nothing
    assert graded((.01, -.01, .03), .05, ())['verdict'] == 'not reproduced' # the published margin is not possible
    assert graded((float('nan'), 0, 0), 0, ())['verdict'] == 'not testable on this data'
    for one in (graded((.05, .01, .09), .0, ()), graded((-.05, -.09, -.01), .0, ())):
        assert limited(one, 1)['verdict'] in ('direction only', 'undecided')


def test_a_level_is_decided_on_the_papers_own_collections_only():
    frame = trained(TRUTH, .0)
    evidence = dict(predictions={'wrist/RadiNet_wrist': frame}, resamples=50)
    for own, verdict in ((set(), 'not testable on this data'), ({'wrist/RadiNet_wrist'}, 'reproduced')):
        got = judged(evidence | dict(paper_data=own))
        assert got.verdict['karam-level-accuracy'] == verdict


def test_a_level_needs_a_lower_bound_too():
    "On sixty noisy cases the interval reaches from .6 to 1: it contains the published level, and shows nothing"
    y = np.arange(300) % 2
    frame = trained(y, .5)
    wide = frame[(frame.split == 'valid') | (frame.study.str[1:].astype(int) < 160)]
    for rows, verdict in ((wide, 'undecided'), (trained(y, .15), 'reproduced')):
        evidence = dict(predictions={'wrist/RadiNet_wrist': rows}, paper_data={'wrist/RadiNet_wrist'})
        got = judged(evidence)
        assert got.verdict['karam-level-accuracy'] == verdict


def test_a_profile_edited_to_other_epochs_changes_the_protocol_table():
    "From the profile by way of the plan to the table: nothing in between is a default"
    from types import SimpleNamespace

    from radinet_nb.papers.karam2021.protocol import protocol_table
    from radinet_nb.workflow.plan import make_plan
    from radinet_nb.workflow.profiles import load_profile
    def row(**wrist):
        settings = {f'karam2021.wrist.{k}': v for k, v in wrist.items()}
        plan = make_plan(load_profile('demo', settings=settings))
        params = {k: v for k, v in plan['karam2021/stage/RadiNet_wrist.seed0'].params.items() if k != 'threads'}
        record = dict(name='RadiNet_wrist', task='fracture', epochs=1, shape=[72, 144], grouping=['patient'])
        run = SimpleNamespace(folder='', params=params | dict(source='before'), record=record)
        return protocol_table([run]).set_index('item').loc['epochs with fine-tuning, at most']
    demo, edited, published = row(), row(epochs=7), row(epochs=100)
    epochs = load_profile('demo')['karam2021']['wrist']['epochs']
    assert (demo.ours, demo.agrees) == (str(epochs), 'no') and (edited.ours, edited.agrees) == ('7', 'no')
    assert (published.ours, published.agrees) == ('100', 'yes')
