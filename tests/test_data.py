"The room data: properties of splits and fingerprints, and the reading of real collections where they are at hand"
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radinet_nb.data.studies import check_disjoint, columns, read_studies, split_studies, splits, study_table, validate, write_studies
from radinet_nb.errors import InputError

views = st.tuples(st.integers(0, 30), st.integers(0, 2), st.sampled_from(['wrist', 'hand', 'elbow']), st.sampled_from([0, 1, None]))


def table(rows, **kwargs):
    return study_table([dict(patient=f'p{p}', study=f'p{p}-{s}-{part}', body_part=part, label=label, path=f'/x/{i}.png')
                        for i,(p, s, part, label) in enumerate(rows)], collection='mine', **kwargs)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(views, min_size=3, max_size=80).filter(lambda o: len({r[0] for r in o}) >= 3), st.integers(0, 9))
def test_split_keeps_patients_whole_fills_every_side_and_ignores_row_order(rows, seed):
    cohort = split_studies(table(rows), seed=seed)
    assert cohort.groupby('patient').split.nunique().max() == 1
    assert set(cohort.split) == set(splits)
    again = split_studies(cohort.sample(frac=1, random_state=seed), seed=seed).set_index('path').split
    assert again[cohort.path].tolist() == cohort.split.tolist()


def test_split_holds_shares_and_prevalence_on_a_large_cohort():
    rng = np.random.default_rng(0)
    rows = [(p, s, part, int(rng.random() < rate)) for p in range(3000) for part,rate in [[('wrist', .4), ('hand', .2)][p % 3 == 0]]
            for s in range(1+(p % 5 == 0))]
    cohort = split_studies(table(rows))
    assert np.allclose(cohort.split.value_counts(normalize=True)[list(splits)], [.8, .1, .1], atol=.002)
    rates = cohort.groupby(['body_part', 'split']).label.mean().unstack()
    assert (rates.max(axis=1)-rates.min(axis=1)).max() < .02


def test_a_torn_patient_is_found_by_patient_study_path_and_group():
    base = table([(0, 0, 'wrist', 1), (0, 1, 'wrist', 0), (1, 0, 'wrist', 1)])
    with pytest.raises(InputError, match='1 patient on two sides'): validate(base.assign(split=['train', 'test', 'train']))
    other = base.assign(collection='copy', patient=['q', 'r', 's'])
    with pytest.raises(InputError, match='path'): check_disjoint(base.assign(split='train'), other.assign(split='test'))
    with pytest.raises(InputError, match='1 hash'):
        check_disjoint(base.assign(split='train', hash=[1, 2, 3]),
                       other.assign(split='test', hash=[3, 4, 5], path=other.path+'b'), by=['hash'])


def test_tables_survive_the_disk(tmp_path):
    cohort = table([(0, 0, 'wrist', 1), (1, 1, 'hand', None)])
    cohort = validate(cohort.assign(date=pd.Timestamp('2020-02-03'), boxes=['[[0, 1, 2, 3]]', '[]'], side='L'))
    write_studies(cohort, tmp_path/'a'/'studies.parquet')
    back = read_studies(tmp_path/'a'/'studies.parquet')
    pd.testing.assert_frame_equal(back, cohort)
    assert list(back) == [*columns, 'side']
