"A task that must be learned, and one that cannot be: obvious fractures, and permuted labels."
import pandas as pd
import pytest

from radinet_nb.analysis.metrics import evaluate
from radinet_nb.data.cache import build_cache, pair_views
from radinet_nb.data.hospital import hospital_key, read_hospital
from radinet_nb.data.studies import split_studies
from radinet_nb.learning.stages import stage_from_parameters
from radinet_nb.learning.transfer import train_stage
from radinet_nb.synthetic.hospital import write_hospital

SMALL = dict(backbone='densenet51', warmup=0, lr=0.001, batch_size=16, augmentation=0.25, threads=1)


@pytest.fixture(scope='module')
def wrists(tmp_path_factory):
    folder = tmp_path_factory.mktemp('controls')
    write_hospital(folder/'export', patients=450, pixels=96, noise=.36, parts=['wrist'], difficulty='obvious', seed=1,
                   jobs=2) # as the demo renders it
    read = read_hospital(folder/'export', hospital_key(folder/'export')).studies
    cases = pair_views(split_studies(read, shares=(0.7, 0.1, 0.2), seed=1))
    return cases, build_cache(cases, folder/'cache', 72)


def auc(run):
    row = evaluate(run.predictions[run.predictions.split == 'test'], metrics=('auc',)).iloc[0]
    return pd.Series(dict(value=row.value, low=row.low, high=row.high))


@pytest.mark.slow
def test_obvious_fractures_are_learned(wrists):
    found = auc(train_stage(stage_from_parameters(SMALL | dict(epochs=9)), *wrists))
    print(found.to_dict())
    assert found.value >= 0.95, found


@pytest.mark.slow
def test_permuted_labels_are_not(wrists):
    found = auc(train_stage(stage_from_parameters(SMALL | dict(epochs=3, shuffle_labels=True)), *wrists))
    assert found.low <= 0.5 <= found.high, found
