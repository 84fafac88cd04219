"""A model folder: what its configuration may say, and that odd ones end in one line

`RADINET_ODD=500 RADINET_SEED=7 pytest tests/test_model_folder.py` for many, with a seed of their own."""
import copy
import json

import numpy as np
import pytest
import torch
from test_odd_settings import many, one_line, seed

from radinet_nb.errors import InputError
from radinet_nb.learning.networks import Network
from radinet_nb.models.folder import load_network, write_model

FACTS = dict(name='Test', version='0', task='fracture', classes=['none', 'fracture'], unit='pair', shape=[32, 64],
             parts=['wrist'], threshold=.5, rule='accuracy', synthetic=True, grouping='patient', run='0', commit=None,
             fingerprint=None)
ODD = [None, True, False, 0, 1, -1, 2, .5, 1.5, 1e308, float('nan'), float('inf'), 10**400, '', 'a', 'x'*5000, '²',
       '\ud800', [], {}, [None], [float('nan')]*3, [[]], {'mean': [0, 0, 0]}, ['none', 'none'], ['fracture', 'none'],
       [64, 128], [32.0, 64], [32, 64, 1], [-32, 64], 'view', '../..', 'densenet121', [0, 0, 0],
       {'std': [0, 0, 0], 'mean': [0, 0, 0]}]
TEXTS = ['', '{', '[]', 'null', '"a"', '[' * 20_000, '{"a":' * 20_000, '\x00' * 50, '{}', 'NaN',
         '{"format": 1}', '1' * 5000]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    torch.manual_seed(0)
    return write_model(Network('densenet51'), tmp_path_factory.mktemp('model')/'model', **FACTS)


def odd_configs(config, seed, n):
    "Texts of odd configurations: values of other kinds, keys lost, doubled or renamed, cut files, other encodings"
    rng = np.random.default_rng(seed)
    for _ in range(n):
        kind, odd = rng.integers(6), copy.deepcopy(config)
        key = str(rng.choice(list(config)))
        if kind == 0: odd.pop(key)
        elif kind == 1: odd[str(rng.choice(['x', '', key.upper(), f'{key} ']))] = odd.pop(key)
        elif kind == 2: odd['normalization'][str(rng.choice(['mean', 'std', 'y']))] = ODD[rng.integers(len(ODD))]
        elif kind < 5: odd[key] = ODD[rng.integers(len(ODD))]
        if kind < 5: data = bytearray(json.dumps(odd).encode())
        else: data = bytearray(TEXTS[rng.integers(len(TEXTS))].encode())
        if rng.random() < .1 and data: data[int(rng.integers(len(data)))] = int(rng.integers(256))
        if rng.random() < .1: data = data[:int(rng.integers(len(data) + 1))]
        yield bytes(data)


def test_odd_configurations_end_in_a_value_or_one_line(folder):
    path, values = folder/'config.json', []
    right = path.read_text()
    try:
        for i, data in enumerate(odd_configs(json.loads(right), seed+5, many)):
            path.write_bytes(data)
            try: assert len(one_line(lambda: values.append(load_network(folder)[1]))) < 600
            except BaseException: print(i, data[:2000]); raise
    finally: path.write_text(right)
    assert len(values) < many//2 and all(o['classes'] == FACTS['classes'] for o in values)


@pytest.mark.parametrize(('key', 'value'), [
    ('classes', ['fracture', 'none']), ('classes', ['none', 'fracture', 'other']), ('shape', [64, 128]),
    ('unit', 'view'),
    ('threshold', float('nan')), ('threshold', 1.5), ('threshold', None), ('widths', [7]), ('task', 'side')])
def test_a_configuration_that_the_weights_deny_is_refused(folder, key, value):
    path = folder/'config.json'
    right = path.read_text()
    path.write_text(json.dumps(json.loads(right) | {key: value}))
    try:
        with pytest.raises(InputError, match=key): load_network(folder)
    finally: path.write_text(right)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('part', ['body', 'head'])
def test_weights_that_are_no_numbers_are_refused_before_anything_is_written(tmp_path, part, value):
    network = Network('densenet51')
    with torch.no_grad(): list(getattr(network, part).parameters())[-1].view(-1)[0] = value
    with pytest.raises(InputError, match='NaN or infinite'): write_model(network, tmp_path/'new', **FACTS)
    assert not (tmp_path/'new').exists()
