"Corruptions, curves over them, smaller training sets, and CT: what must hold whoever calls them, and wrong use"
import numpy as np
import pandas as pd
import pytest
import torch

from radinet_nb.analysis.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from radinet_nb.analysis.robustness import curve_differences, curve_table, model_curves
from radinet_nb.data.ct import read_ct, window_slices
from radinet_nb.data.hospital import hospital_key
from radinet_nb.data.studies import split_studies
from radinet_nb.errors import InputError
from radinet_nb.learning.rows import with_train_share
from radinet_nb.learning.tasks import FRACTURE
from radinet_nb.synthetic.ct_series import write_ct


def images(n=5, shape=(48, 40), seed=0):
    smooth = np.random.default_rng(seed).normal(size=(n, *shape)).cumsum(1).cumsum(2)
    low, high = smooth.min((1, 2), keepdims=True), smooth.max((1, 2), keepdims=True)
    return ((smooth - low)/(high - low)*200 + 20).astype(np.uint8)


@pytest.mark.parametrize('name', CORRUPTIONS)
def test_an_image_is_spoiled_alike_in_any_batch_and_order(name):
    x = images()
    whole = corrupt(x, name, 4, seed=2)
    assert torch.equal(corrupt(x[::-1].copy(), name, 4, seed=2).flip(0), whole)
    for i in range(len(x)): assert torch.equal(corrupt(x[i:i + 1], name, 4, seed=2)[0], whole[i])
    assert torch.equal(corrupt(torch.from_numpy(x).float(), name, 4, seed=2), whole)


@pytest.mark.parametrize('name', CORRUPTIONS)
def test_severity_0_is_the_identity_and_more_is_worse(name):
    x = images(40)
    assert torch.equal(corrupt(x, name, 0), torch.from_numpy(x))
    assert torch.equal(corrupt(torch.from_numpy(x).double(), name, 0), torch.from_numpy(x).double())
    clean, worse = torch.from_numpy(x).float(), range(1, SEVERITIES + 1)
    away = [(corrupt(x, name, s) - clean).square().mean().item() for s in worse]
    assert away == sorted(away) and away[0] > 0


def test_the_caller_keeps_the_images():
    x = images()
    before = x.copy()
    for name in CORRUPTIONS: corrupt(x, name, 5)
    assert (x == before).all()


def test_wrong_use_of_corruptions_is_told():
    x = images()
    for name, near in (('JPG', 'jpeg'), ('Blur', 'blur'), ('quantum noise', 'quantum_noise')):
        with pytest.raises(InputError, match=f'did you mean {near}'): corrupt(x, name, 1)
    for severity in (-1, 6, 2.5, True, '3'):
        with pytest.raises(InputError, match='from 0 to 5'): corrupt(x, 'blur', severity)
    for wrong in (x[0], x[:, None], x.astype(int), x.astype(float) - 60, x.astype(float)*2, np.full((1, 4, 4), np.nan),
                  x.tolist()):
        with pytest.raises(InputError): corrupt(wrong, 'blur', 1)


def frame(skills, seeds=3, patients=60):
    rng, truth = np.random.default_rng(0), np.arange(2*patients)//2 % 2
    res = [pd.DataFrame(dict(model=model, corruption='blur', seed=seed, level=level, case=np.arange(2*patients),
                             patient=np.arange(2*patients)//2, target=truth, probability=1/(1 + np.exp(
                                 -skill*(truth - .5)/(level + 1) - rng.normal(size=2*patients)))))
           for model, skill in skills.items() for seed in range(seeds) for level in range(3)]
    return pd.concat(res, ignore_index=True)


def test_curves_do_not_depend_on_the_order_of_rows_and_know_who_is_better():
    rows, cuts = frame(dict(good=6., poor=1.)), {(m, s): .5 for m in ('good', 'poor') for s in range(3)}
    one, other = (model_curves(o, cuts) for o in (rows, rows.sample(frac=1, random_state=1)))
    keys = ['corruption', 'model', 'metric', 'level']
    a, b = (curve_table(o).sort_values(keys).reset_index(drop=True) for o in (one, other))
    pd.testing.assert_frame_equal(a, b)
    pairs = curve_differences(one, 'good', 'poor').set_index(['metric', 'level'])
    assert pairs.low['auc', 'area'] > 0 and pairs.p_holm['auc', 'area'] < .05
    back = curve_differences(one, 'poor', 'good').set_index(['metric', 'level'])
    assert np.allclose(back.difference, -pairs.difference) and np.allclose(back.low, -pairs.high)


def test_a_model_is_no_more_robust_than_itself():
    rows = frame(dict(a=3.))
    rows = pd.concat([rows, rows.assign(model='b')])
    pairs = curve_differences(model_curves(rows, {(m, s): .5 for m in 'ab' for s in range(3)}), 'a', 'b')
    assert (pairs.difference == 0).all() and not (pairs.low > 0).any() and not (pairs.high < 0).any()


@pytest.fixture(scope='module')
def ct(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ct')
    truth = write_ct(folder/'export', patients=12, pixels=48, seed=4, slices=5, severity=2.)
    return folder, truth, read_ct(folder/'export', hospital_key(folder/'export'))


def test_a_synthetic_ct_is_read_as_it_was_written(ct):
    _, truth, reading = ct
    assert reading.account['used'] == reading.account['synthetic_files'] == len(truth) == 60
    assert reading.account['series'] == 12 and reading.account['slices_missing'] == 0
    found = reading.studies
    assert found.label.sum() == truth.label.sum() > 0 and set(found.label_source) == {'expert'}
    assert ((found.boxes != '[]') == (found.label == 1)).all()
    for _, o in found.groupby('study'): assert o.position.is_monotonic_increasing and o.patient.nunique() == 1


def test_a_slice_through_a_window_keeps_its_place(ct):
    folder, _, reading = ct
    seen = window_slices(reading.studies, folder/'seen')
    assert seen.drop(columns='path').equals(reading.studies.drop(columns='path')) and seen.path.is_unique
    with pytest.raises(InputError, match='give a width'): window_slices(reading.studies, folder/'seen', 40, -1)


def test_smaller_training_sets_are_nested_and_touch_nothing_else(ct):
    rows = split_studies(ct[2].studies, (.6, .2, .2), seed=1)
    kept = {share: with_train_share(rows, share, FRACTURE, seed=5) for share in (1., .6, .3)}
    for share, part in kept.items():
        assert part[part.split != 'train'].path.tolist() == rows[rows.split != 'train'].path.tolist()
        learned, whole = ({*o[o.split == 'train'].patient} for o in (part, rows))
        assert len(learned) == max(1, round(share*len(whole)))
        # whole patients
        assert (part.patient.value_counts() == 5).all()
    assert {*kept[.3].path} < {*kept[.6].path} < {*kept[1.].path}
    for share in (0, -.1, 1.2):
        with pytest.raises(InputError, match='above 0, at most 1'): with_train_share(rows, share, FRACTURE, 0)
