"sood2021: the seven rows of Fig. 4, from the plan to the table"
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radinet_nb.cli import main
from radinet_nb.errors import InputError
from radinet_nb.learning.blocks import free_parameters
from radinet_nb.learning.networks import Network
from radinet_nb.learning.stages import stage_from_parameters
from radinet_nb.papers.sood2021.configurations import BODY_INITS, CONFIGURATIONS, HE, WHOLE, XAVIER
from radinet_nb.papers.sood2021.factors import (FACTORS, base_setting, factor_settings, setting_key, setting_name,
                                                setting_of, setting_stage)
from radinet_nb.papers.sood2021.depth_tables import depth_differences, factors_table, searches_table
from radinet_nb.papers.sood2021.grid_tables import fig4_table, grid_differences, trainings_table
from radinet_nb.papers.sood2021.region_tables import MURA_DENSENET169, regions_table, validation_table
from radinet_nb.results.by_study import runs_by_study
from radinet_nb.results.claims import judge_claims
from radinet_nb.results.hardware import beside_hardware
from radinet_nb.workflow.papers import paper_module
from radinet_nb.workflow.plan import make_plan
from radinet_nb.workflow.profiles import load_profile

SEEDS = dict(smoke=1, demo=1, open=3, paper=5)
COLLECTIONS = dict(smoke=[], demo=[], open=['fracatlas'], paper=['mura', 'hospital'])


@pytest.fixture(scope='module')
def plans(tmp_path_factory):
    "What each profile runs for sood2021, by id"
    folder = str(tmp_path_factory.mktemp('collection'))
    return {name: make_plan(load_profile(name, dict.fromkeys(used, folder)), 'sood2021')
            for name, used in COLLECTIONS.items()}


def stages(plan): return {o.partition('/stage/')[2]: node for o, node in plan.items() if '/stage/' in o}


@pytest.mark.parametrize('profile', COLLECTIONS)
def test_every_row_is_trained_for_every_seed_from_one_start_on_one_split(profile, plans):
    own = {k: v for k, v in stages(plans[profile]).items() if not k.startswith(('depth_', 'body_part.'))}
    seeds = range(SEEDS[profile])
    rows = {f'{o["key"]}.seed{seed}' for o in CONFIGURATIONS.values() for seed in seeds}
    assert rows | {f'frozen_probe.seed{o}' for o in seeds} <= set(own)
    assert len({node.parents['ingested'] for node in own.values()}) == 1
    for key, node in own.items():
        seed, whole = key.rpartition('seed')[2], '_whole.' in key
        assert node.params['seed'] == int(seed)
        assert ('source' in node.parents) != whole # of the whole network's reading nothing is carried
        if not whole: assert node.parents['source'].endswith(f'General.seed{seed}')


@pytest.mark.parametrize('profile', COLLECTIONS)
def test_a_row_has_what_fig4_names_in_every_profile(profile, plans):
    for row in CONFIGURATIONS.values():
        for key in [row['key']] + [f'{row["key"]}_whole']:
            node = stages(plans[profile]).get(f'{key}.seed0')
            if node is None: continue
            named = {k: v for k, v in row.items() if k not in ('key', 'claim')}
            assert {k: node.params[k] for k in named} == named, key
            assert (node.params['head_dropout'], node.params['unit']) == (.2, 'view')
            assert (node.params['name'].endswith(WHOLE), node.params.get('body_init', '')) == (
                key.endswith('_whole'), BODY_INITS[row['key']] if key.endswith('_whole') else '')


def test_the_paper_profile_is_the_published_protocol(plans):
    node = stages(plans['paper'])['none_frozen.seed4']
    wanted = dict(backbone='densenet169', batch_size=64, input_mean=[.5]*3, input_std=[.5]*3)
    assert {k: node.params[k] for k in wanted} == wanted
    ingest = plans['paper'][node.parents['ingested']]
    assert (ingest.params['pixels'], list(ingest.params['data'])) == (224, ['mura']) # and no hospital


@pytest.mark.parametrize('profile', ['smoke', 'demo', 'open'])
def test_what_two_papers_read_alike_is_read_once(profile, plans):
    parents = stages(plans[profile])['none_frozen.seed0'].parents
    assert parents == dict(ingested='karam2021/ingest/main', source='karam2021/general/General.seed0')


@pytest.mark.parametrize('profile', COLLECTIONS)
def test_a_setting_changes_one_factor_and_starts_where_its_name_says(profile, plans):
    nodes = {k: v for k, v in stages(plans[profile]).items() if k.startswith('depth_')}
    reader = plans[profile]['sood2021/depth/main']
    settings = {k: setting_of(SimpleNamespace(params=v.params, folder=k)) for k, v in nodes.items()}
    base = base_setting(next(iter(nodes.values())).params['lr']) # the base comes first
    assert set(reader.parents['runs']) == {f'sood2021/stage/{k}' for k in nodes}
    for key, setting in settings.items():
        node, drawn = nodes[key], setting_name(setting) in reader.params['drawn']
        changed = {k for k in FACTORS if setting[k] != base[k]}
        crossed = changed - {'free'} if changed & {'start', 'lr'} else changed # these two are crossed with what is free
        assert drawn or len(crossed - ({'layers'} if setting['way'] == 'LP-FT' else set())) <= 1, key
        source = node.parents.get('source', '')
        assert dict(nothing='', general_images='General', body_part='body_part')[
            setting['start'].replace(' ', '_')] in source and bool(source) == (setting['start'] != 'nothing'), key
        assert key.startswith(setting_key(setting)) and node.params['name'] == setting_name(setting)


def test_the_search_of_the_paper_profile_draws_as_many_as_change_one_factor(plans):
    nodes = [v for k, v in stages(plans['paper']).items() if k.startswith('depth_') and k.endswith('.seed0')]
    drawn = set(plans['paper']['sood2021/depth/main'].params['drawn'])
    profile = load_profile('paper')
    factors, section = profile['sood2021']['factors'], profile['sood2021']['grid']
    one_by_one = {setting_name(o) for o in factor_settings(factors, section['lr'])}
    assert len(drawn) == len(one_by_one) and drawn | one_by_one <= {o.params['name'] for o in nodes}


def test_adapters_are_a_pair_on_their_own_backbone_and_left_out_without_peft(plans, monkeypatch):
    "A DenseNet has nothing to adapt: a transformer is trained whole and by adapters, and one taken from the other"
    pair = {o.params['variant']: o for k, o in stages(plans['smoke']).items() if '_on_test_vit' in k}
    assert set(pair) == {'plain on test_vit', 'LoRA on test_vit'}
    assert {o.params['backbone'] for o in pair.values()} == {'test_vit'}
    assert len({o.parents['source'] for o in pair.values()}) == 1
    assert pair['LoRA on test_vit'].params['lora_rank'] == 8 and 'lora_rank' not in pair['plain on test_vit'].params
    monkeypatch.setattr('radinet_nb.errors.is_installed', lambda module: module != 'peft')
    bare = make_plan(load_profile('smoke'), 'sood2021')
    assert not any('test_vit' in o for o in bare if o.startswith('sood2021/'))
    assert 'peft is not installed' in bare['sood2021/depth/main'].params['left_out']


def tiny_mura(root):
    "MURA's layout: seven regions, two views a study, abnormal studies with a bright spot"
    rng, regions = np.random.default_rng(0), 'WRIST ELBOW FINGER FOREARM HAND HUMERUS SHOULDER'.split()
    for part, first, n in ('train', 1, 56), ('valid', 101, 28):
        images, labels = [], []
        for p in range(first, first + n):
            bad = p//7 % 2
            study = f'MURA-v1.1/{part}/XR_{regions[p % 7]}/patient{p:05}/study1_{"positive" if bad else "negative"}/'
            (root/study).mkdir(parents=True)
            for v in 1, 2:
                x = rng.normal(90, 25, (48, 40))
                x[10:20, 10:20] += 120*bad
                Image.fromarray(x.clip(0, 255).astype(np.uint8)).save(root/study/f'image{v}.png')
                images.append(f'{study}image{v}.png')
            labels.append(f'{study},{bad}')
        (root/'MURA-v1.1'/f'{part}_image_paths.csv').write_text('\n'.join(images))
        (root/'MURA-v1.1'/f'{part}_labeled_studies.csv').write_text('\n'.join(labels))
    return str(root)


SMALL = dict(seeds=[0], ingest=dict(pixels=32, shares=[.7, .3, 0.]), whole=[], factors={},
             general=dict(kind='fractal', backbone='densenet51', pixels=32, images=128, classes=4),
             grid=dict(backbone='densenet51', epochs=1, lr=.003, batch_size=16), results=dict(resamples=200))


def test_who_has_mura_and_no_hospital_runs_this_paper(tmp_path):
    mura = tiny_mura(tmp_path)
    plan = make_plan(load_profile('paper', dict(mura=mura)), 'sood2021')
    assert all('hospital' not in (o.params.get('data') or {}) for o in plan.values())
    with pytest.raises(InputError, match='profile paper needs hospital; give --data hospital=FOLDER'):
        make_plan(load_profile('paper', dict(mura=mura)))
    with pytest.raises(InputError, match='profile paper needs mura'): make_plan(load_profile('paper'), 'sood2021')


@pytest.mark.alone
def test_mura_goes_from_its_folder_to_the_page(tmp_path, capsys):
    "The paper's profile on a tiny MURA, at the scale of smoke: Fig. 5 beside the public network, and the claims"
    given = [f'--set=sood2021.{k}={json.dumps(v)}' for k, v in SMALL.items()]
    mura = tiny_mura(tmp_path/'data')
    assert main(['reproduce', '--profile', 'paper', '--only', 'sood2021', '--data', f'mura={mura}',
                 '--runs', str(tmp_path/'runs'), *given]) == 0
    runs = tmp_path/'runs'/'paper'/'sood2021'
    regions = pd.read_csv(runs/'regions'/'main'/'fig5.csv')
    assert set(regions.region) == set(MURA_DENSENET169)
    assert regions[regions.metric == 'kappa'].set_index('region').densenet169.to_dict() == MURA_DENSENET169
    counts = pd.read_csv(runs/'studies'/'main'/'fig2.csv').set_index('region')
    assert counts.total['total'] == 84 and counts.loc['total', ['test_normal', 'test_abnormal']].sum() == 28
    claims = pd.read_csv(runs/'page'/'main'/'claims.csv').set_index('id')
    assert claims.verdict['sood-regions'] and 'page.html' in capsys.readouterr().out


@pytest.mark.parametrize('factors, message', [
    ({'free': ['lats 1']}, 'is no block'), ({'layers': [0]}, 'head of 0 linear layers'),
    ({'way': ['LP-TF']}, 'did you mean LP-FT'), ({'depth': [1]}, 'did you mean'), ({'lr': .1}, 'no list of levels')])
def test_wrong_factors_are_told(factors, message):
    "Before anything runs where the plan can know it, and by the training itself where only the network does"
    if 'free' in factors or 'layers' in factors:
        setting = factor_settings(factors, .001)[1]
        with pytest.raises(InputError, match=message):
            stage = stage_from_parameters(setting_stage(setting, dict(backbone='densenet51', source='start')))
            free_parameters(Network(stage.network), stage.schedule[-1].free)
        return
    with pytest.raises(InputError, match=message):
        make_plan(load_profile('smoke', settings={'sood2021.factors': factors}))


def test_a_row_without_an_initialization_has_no_second_reading():
    with pytest.raises(InputError, match='no row .all_frozen. names an initialization'):
        make_plan(load_profile('smoke', settings={'sood2021.whole': ['all_frozen']}))


def training(name, seed, tp, fp, positives=538, negatives=661):
    "A training that finds some of the abnormal studies and raises some false alarms, on validation too"
    target = np.r_[np.ones(positives, int), np.zeros(negatives, int)]
    called = np.r_[np.arange(positives) < tp, np.arange(negatives) < fp]
    frame = pd.DataFrame(dict(collection='mura', patient=[f'p{i}' for i in range(len(target))],
                              study=[f's{i}' for i in range(len(target))], view='study', body_part='hand',
                              target=target, probability=np.where(called, .8, .2), run=name))
    frame = pd.concat([frame.assign(split='test'), frame.assign(split='valid', patient='v' + frame.patient)])
    record = dict(name=name, seed=seed, epochs=2, best_epoch=1, seconds=1.)
    return SimpleNamespace(folder=name, record=record, predictions=frame.reset_index(drop=True))


def test_the_row_that_the_paper_prints_for_xavier_is_marked_as_collapsed():
    "The confusion matrix that the audit recovers behind accuracy 58.0 and F1 43.0, as a run"
    found = trainings_table([training(XAVIER, 0, 40, 6), training(HE, 0, 400, 131)]).set_index('model')
    assert found.collapsed.to_dict() == {HE: False, XAVIER: True}
    assert round(100*found.accuracy[XAVIER], 1) == 58.0 and round(100*found.macro_f1[XAVIER], 1) == 43.0
    table = fig4_table([training(XAVIER, 0, 40, 6)], resamples=20).set_index('metric')
    assert abs(table.value['macro_f1'] - table.published['macro_f1']) < .0005
    assert table.value['f1'] < .15 # the F1 of the abnormal class alone is not what the paper prints


def test_the_test_split_does_not_choose_the_best_configuration():
    runs = [training('A', 0, 400, 100), training('B', 0, 300, 100)]
    for run in runs:
        p = run.predictions
        worst = p.split.eq('test') & (run.record['name'] == 'A')
        run.predictions = p.assign(probability=p.probability.mask(worst, 1 - p.target)) # A is always wrong on the test
    assert validation_table(runs).model.tolist() == ['A', 'B']


def test_a_row_that_did_not_train_decides_nothing():
    "He beats Xavier by far when Xavier collapsed, and the ledger says why that is no finding"
    rng = np.random.default_rng(0)
    def frames(skill):
        base = training('A', 0, 400, 100).predictions.drop(columns='run')
        def noisy(seed):
            noise = .2*np.random.default_rng(seed).normal(size=len(base))
            return np.clip(.5 + skill*(base.target - .5) + noise, 0, 1)
        return pd.concat([base.assign(probability=noisy(o), seed=o) for o in range(3)], ignore_index=True)
    keys = 'sood/none frozen', 'sood/none frozen, Xavier'
    evidence = dict(predictions={keys[0]: frames(.5), keys[1]: frames(.02*rng.random())}, resamples=100)
    checks = dict.fromkeys(paper_module('sood2021', 'checks').CHECKS, lambda: (True, ''))
    def verdict(more): return judge_claims('sood2021', evidence | more, checks).set_index('id').loc['sood-xavier']
    assert verdict({}).verdict == 'reproduced'
    stuck = verdict(dict(untrained={keys[1]: 'it did not train: one answer'}))
    assert stuck.verdict == 'undecided' and 'did not train' in stuck.says


def hardware_runs(names, seeds=(0, 1)):
    "Trainings on 300 studies of which some abnormal ones show hardware"
    rng, n = np.random.default_rng(0), 300
    target = np.arange(n) % 2
    base = pd.DataFrame(dict(collection='fracatlas', patient=[f'p{i//2}' for i in range(n)],
                             study=[f's{i}' for i in range(n)], view='frontal', target=target,
                             body_part=np.where(np.arange(n) % 3, 'hand', 'leg'),
                             split=np.where(np.arange(n) < 100, 'valid', 'test'),
                             hardware=pd.array(((target == 1) & (rng.random(n) < .3)).astype(int), 'Int8')))
    def one(name, seed, setting):
        noise = np.random.default_rng([seed, len(name)]).normal(size=n)
        frame = base.assign(run=name, probability=1/(1 + np.exp(-(target - .5 + noise))))
        record = dict(name=name, seed=seed, epochs=2, best_epoch=0, seconds=1.)
        return SimpleNamespace(folder=f'{name}{seed}', record=record, predictions=frame,
                               params=setting_stage(setting) if setting else {})
    return [one(name, seed, setting) for name, setting in names.items() for seed in seeds]


def test_every_table_stands_beside_itself_without_hardware():
    "FracAtlas flags hardware: each table of sood2021 takes its second columns, for the same rows"
    rows = runs_by_study(hardware_runs(dict.fromkeys([HE, XAVIER, HE + WHOLE])))
    settings = factor_settings(dict(free=['head'], lr=[1e-4]), .001)
    factors = runs_by_study(hardware_runs({setting_name(o): o for o in settings}))
    draws, gap = dict(resamples=50), ('difference', 'low', 'high')
    tables = [beside_hardware(fig4_table, rows, ('model', 'reading', 'metric'), **draws),
              beside_hardware(grid_differences, rows, ('baseline', 'reading', 'metric'), gap, **draws),
              beside_hardware(regions_table, rows[:2], ('region', 'metric'), **draws),
              beside_hardware(factors_table, factors, ('model', 'metric'), **draws),
              beside_hardware(depth_differences, factors, ('setting', 'metric'), gap, **draws),
              beside_hardware(searches_table, factors, ('search', 'metric'), **draws,
                              drawn=[setting_name(settings[1])])]
    for table in tables: assert table.without_hardware.notna().any() and len(table)
    test = rows[0].predictions.query('split == "test"')
    assert tables[0].without_hardware_n.eq((test.hardware == 0).sum()).all() and (tables[0].n == len(test)).all()
