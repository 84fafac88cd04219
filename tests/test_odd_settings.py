"""Odd values on the command line: a value or one line, in no time

`RADINET_ODD=500 RADINET_SEED=7 pytest tests/test_odd_settings.py` for many, with a seed of their own."""
import os
import random
import time
from dataclasses import fields
from inspect import signature
from unittest.mock import patch

import pytest

from radinet_nb.analysis import advice
from radinet_nb.cli import app
from radinet_nb.data.notebooks import find_notebook
from radinet_nb.errors import InputError
from radinet_nb.learning import strategies
from radinet_nb.synthetic import hospital
from radinet_nb.synthetic.population import Hospital
from radinet_nb.terminal import pairs
from radinet_nb.workflow.parameters import check_parameters, example_of, is_kind, notebook_parameters
from radinet_nb.workflow.plan import make_plan
from radinet_nb.workflow.profiles import load_profile

many, seed = int(os.environ.get('RADINET_ODD', 60)), int(os.environ.get('RADINET_SEED', 0))
steps = 'ingest', 'general', 'stage', 'localize', 'features'
names = ['seeds', 'threads', 'data', 'what', 'resources', 'karam2021', 'karam2021.ingest', 'karam2021.ingest.pixels',
         'karam2021.wrist', 'karam2021.target_parts', 'karam2021.ingest.knobs', 'karam2021.wrist.free', 'nobody.x',
         'sood2021.factors', 'karam2021.wrist.epochs.x', 'data.hospital', 'seeds.0', '', '.', 'name', 'karam2021..x',
         'karam2021.ingest.'+'x'*999, '__class__', 'karam2021.controls', 'lu2022', 'alammar2023.seeds', 'a\nb', 'ä',
         '\ud800']
odd = ['', ' ', '~', '0', '-1', '1e400', '.nan', '-.inf', '1'*5000, '0x1F', '0b2', '1_000', '12:30:45', '2020-13-45',
       '2020-01-01', '[]', '{}', '[[]]', '[0, 0]', '[0, x]', '[true]', '{1: 2}', '{[1]: 2}', '{a: {b: {c: 1}}}',
       '[.nan]', '!!python/object/apply:os.system [true]', '!!timestamp x', '!!bool x', '!!int x', '!!set {a, b}',
       '!!binary x', '!!omap [a: 1]', '&a [*a]', '[&a [1, 2], *a]', '['*5000, '{'*5000, '"', "'", 'a: b: c', '- a',
       '=', '<<', '<<: 1', '%', '@a', '`a`', '\0', '\x07', '\ud800', '\u202e', '²', 'x'*5000, '$(touch y)',
       '../../x', 'yes', 'null', '|', '>', '? a', '[a, b', 'wrist', 'last ²', 'block1+head', 'last 2', 'lora',
       '10000000000000000000000', '1e308', '{pixels: [1]}', '{noise: x}', '{noise: [1, 2]}', '{noise: .nan}',
       '{parts: 5}', '[finger, finger]', '0.1']


def one_line(call):
    "One line of an error, or '' for a value; anything else ends the test"
    began, line = time.process_time(), ''
    try: call()
    except InputError as e: line = str(e)
    assert time.process_time()-began < 5
    assert '\n' not in line and len(line) < 1500 and line.isprintable(), line[:200]
    return line


def odd_value(rng):
    "An odd value, or two of them in a list, a mapping or a text"
    a, b = rng.choice(odd), rng.choice(odd)
    return rng.choice([a, a, a, f'[{a}, {b}]', f'{{{a[:50]}: {b}}}', a+b, a[:rng.randrange(len(a)+1)]])


def test_odd_settings_are_a_value_or_one_line():
    rng, lines = random.Random(seed), 0
    for _ in range(many):
        item = f'{rng.choice(names)}={odd_value(rng)}'
        lines += bool(one_line(lambda item=item: load_profile('smoke', settings=pairs([item], '--set', as_yaml=True))))
    assert lines > many//2


def test_odd_parameters_are_a_value_or_one_line():
    rng, lines = random.Random(seed), 0
    for _ in range(many):
        notebook = find_notebook(f'steps/{rng.choice(steps)}')
        name = rng.choice(list(notebook_parameters(notebook)))
        try: given = pairs([f'{name}={odd_value(rng)}'], '--set', as_yaml=True)
        except InputError: continue
        lines += bool(one_line(lambda notebook=notebook, given=given: check_parameters(given, notebook)))
    assert lines > many//3


def test_odd_sections_are_refused_by_the_plan():
    rng = random.Random(seed)
    for name in rng.choices(names, k=max(2, many//4)):
        item = f'{name}={odd_value(rng)}'
        one_line(lambda item=item: make_plan(load_profile('smoke', settings=pairs([item], '--set', as_yaml=True))))


def test_odd_knobs_of_the_synthetic_hospital_are_a_value_or_one_line(tmp_path):
    rng, knobs, lines = random.Random(seed), [o.name for o in fields(Hospital)], 0
    for _ in range(many):
        args = ['synthesize', str(tmp_path/'out'), '--set', f'{rng.choice([*knobs, *knobs, *names])}={odd_value(rng)}']
        with patch.object(hospital, 'population', side_effect=InputError('good')): # which is drawn of right knobs
            lines += 'good' not in one_line(lambda args=args: app(args, standalone_mode=False))
    assert lines > many//2 and not list((tmp_path/'out').glob('*'))


def test_odd_parameters_of_advice_are_a_value_or_one_line(tmp_path):
    rng, lines = random.Random(seed), 0
    known = [*notebook_parameters(find_notebook('steps/stage')), *signature(advice.advise).parameters]
    with (patch.object(strategies, 'named_start', return_value=('start', 'densenet51')),
          patch.object(strategies, 'studies_with_images', return_value=(None, None, ())),
          patch.object(advice, 'advise', autospec=True, side_effect=InputError('good'))): # after every check
        for _ in range(many):
            args = ['advise', __file__, __file__, str(tmp_path), '--set', f'{rng.choice(known)}={odd_value(rng)}']
            lines += 'good' not in one_line(lambda args=args: app(args, standalone_mode=False))
    assert many//3 < lines < many and not list(tmp_path.iterdir())


@pytest.mark.parametrize('step', steps)
def test_every_example_is_one(step):
    notebook = find_notebook(f'steps/{step}')
    for name,one in notebook_parameters(notebook).items():
        value, = pairs([f'x={example_of(one)}'], '--set', as_yaml=True).values()
        assert is_kind(value, one.type) and value not in ([], {}), name
        if name not in ('key', 'out', 'weights', 'start', 'ingest', 'backbone', 'free'):
            one_line(lambda name=name, value=value: check_parameters({name: value}, notebook))


@pytest.mark.parametrize('free', ['blok1', 'last', 'last ²', 'head+', 'lora'])
def test_wrong_words_for_what_learns_are_found_in_the_plan(free):
    for step in 'stage', 'localize':
        line = one_line(lambda step=step: check_parameters({'free': free}, find_notebook(f'steps/{step}')))
        assert 'names no part of a network' in line
        check_parameters({'free': 'block2+head'}, find_notebook(f'steps/{step}'))
