"A paper is a folder and a section of a profile: the engine knows none by name."
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from radinet_nb.data.notebooks import checkout, find_notebook, paper_folders
from radinet_nb.errors import InputError
from radinet_nb.results.claims import read_claims, settings_of
from radinet_nb.workflow.new_paper import new_paper
from radinet_nb.workflow.papers import load_paper, paper_module
from radinet_nb.workflow.plan import make_plan, papers_of
from radinet_nb.workflow.profiles import load_profile
from radinet_nb.workflow.staleness import LIBRARY, code_of

ROOT = Path(__file__).resolve().parents[1]
COLLECTIONS = dict(smoke={}, demo={}, open=['fracatlas'], paper=['mura', 'hospital'])


@pytest.fixture(scope='module')
def plans(tmp_path_factory):
    "The plan of each profile, over an empty folder that stands for its collections"
    empty = str(tmp_path_factory.mktemp('collections'))
    return {profile: make_plan(load_profile(profile, dict.fromkeys(names, empty)))
            for profile, names in COLLECTIONS.items()}


@pytest.mark.parametrize('profile', COLLECTIONS)
def test_karam2021_runs_what_it_ran_when_the_engine_knew_it(profile, plans):
    """The same runs with the same parameters and edges as before the redesign, up to the renames in CHANGELOG.md

    Added to these: the baselines that see no bone in every profile, and the grouping by sequence in `open`. In `demo`
    the chains begin with ImageNet weights of a package at 48 pixels, other targets than the wrist are left out, and the
    hospitals shown are others than those that settings were chosen on; controls begin where the chains begin.
    """
    before = json.loads((ROOT/'tests'/'karam2021_plans.json').read_text())[profile]
    plan = {k: o for k, o in plans[profile].items() if k.startswith('karam2021/') and not o.page}
    assert set(plan) == set(before)
    for k, o in plan.items():
        params = {n: v for n, v in o.params.items() if n not in ('chain', 'target',
                                                                 'variant')} # new: a run says what it is
        if 'data' in params: params['data'] = sorted(params['data'])
        assert params == before[k]['params'], k
        assert o.parents == before[k]['parents'], k


def test_a_training_says_what_it_is(plans):
    plan = plans['smoke']
    params = plan['karam2021/stage/RadiNet_finger.seed0'].params
    assert (params['chain'], params['target']) == (['general', 'radiology', 'finger'], 'finger')
    assert plan['karam2021/stage/RadiNet_wrist_minimal.seed0'].params['variant'] == 'minimal'


def test_the_engine_names_no_paper():
    general = [*(ROOT/'radinet_nb').glob('*/*.py'), ROOT/'radinet_nb'/'cli.py', ROOT/'workflow'/'Snakefile',
               ROOT/'Makefile']
    named = [(p.name, paper) for p in general for paper in paper_folders() for line in p.read_text().splitlines()
             if paper in line and p.parent.name in ('workflow', 'radinet_nb', ROOT.name)
             # make weights builds the model of one folder
             and (p.name, paper) != ('Makefile', 'fracatlas')]
    assert named == [('cli.py', 'karam2021')]*sum(n == 'cli.py' for n,
                                                  _ in named), named # an example in the help of --like


def test_a_new_paper_adds_its_runs_and_touches_nothing_else(tmp_path, monkeypatch, plans):
    before = plans['demo']
    _, section = new_paper('mine', tmp_path/'papers')
    monkeypatch.setenv('RADINET_PAPERS', str(tmp_path/'papers'))
    text = (ROOT/'workflow'/'profiles'/'demo.yaml').read_text().replace('data: {', f'data: {{classes: {tmp_path}, ')
    (tmp_path/'demo.yaml').write_text(f'{text}\n{section}')
    after = make_plan(load_profile(str(tmp_path/'demo.yaml')))
    others = {k: o for k, o in after.items() if not k.startswith('mine/')}
    assert {k: (o.params, o.parents) for k, o in others.items()} == {
        k: (o.params, o.parents) for k, o in before.items()}
    assert {'mine/stage/Fractal.seed0', 'mine/compare/main', 'mine/page/main'} <= set(after)


def test_without_a_paper_the_engine_plans_the_others(tmp_path):
    "A checkout from which one paper was removed, with its section"
    for name in ('nbs', 'radinet_nb', 'workflow'):
        shutil.copytree(ROOT/name, tmp_path/name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    shutil.rmtree(tmp_path/'nbs'/'papers'/'karam2021')
    shutil.rmtree(tmp_path/'radinet_nb'/'papers'/'karam2021')
    profile = yaml.safe_load((tmp_path/'workflow'/'profiles'/'demo.yaml').read_text())
    profile.pop('karam2021'), profile['data'].pop('hospital')
    (tmp_path/'workflow'/'profiles'/'demo.yaml').write_text(yaml.safe_dump(profile, sort_keys=False))
    code = ("from radinet_nb.workflow.plan import make_plan; from radinet_nb.workflow.profiles import load_profile; "
            "print(*make_plan(load_profile('demo')))")
    res = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env={'PYTHONPATH': str(tmp_path), 'PATH': ''},
                         capture_output=True, text=True)
    assert res.returncode == 0, res.stderr[-1500:]
    assert 'sood2021/audit/main' in res.stdout and 'karam2021' not in res.stdout


@pytest.mark.parametrize('step', ['stage', 'general'])
def test_a_training_imports_data_and_learning_only(step):
    allowed = {'data', 'learning', 'errors.py'} | ({'synthetic'} if step == 'general' else set())
    rooms = {p.relative_to(LIBRARY/'radinet_nb').parts[0] for p in code_of(find_notebook(f'steps/{step}'))}
    assert rooms <= allowed, rooms


@pytest.mark.parametrize('settings, message', [
    ({'karam2021.wirst.epochs': 3}, 'did you mean wrist'), ({'karam2021.wrist.epoch': 3}, 'did you mean epochs'),
    ({'karam2021.target_parts': 3}, 'is not of type dict'), ({'seeds': 'zero'}, 'is not of type list'),
    ({'seeds': []}, 'no list of different'),
    ({'karam2021.wrist.backbone': 'densenet168'}, 'densenet169'), ({'karam2021.wrist.epochs': 'three'},
                                                                   'is not of type int'),
    ({'karam2012.wrist.epochs': 3}, 'is no setting'), ({'karam2021.minimal': ['RadiNet_wirst']},
                                                       'did you mean RadiNet_wrist'),
    ({'karam2021.target_parts': {'../../x': {}}}, 'is no name'), ({'karam2021.staged': {'RadiNet_wrist': {'epoch': 1}}},
                                                                  'did you mean epochs')])
def test_a_profile_is_refused_before_anything_runs(settings, message):
    with pytest.raises(InputError, match=message) as e: make_plan(load_profile('demo', settings=settings))
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('paper', paper_folders())
def test_every_item_belongs_to_a_notebook_that_saves_it(paper):
    for item in load_paper(paper).items.values():
        source = find_notebook(f'{paper}/{item.notebook}').read_text()
        assert f"'{item.key}'" in source, f'{item.notebook} never names {item.key}'
        assert item.shows and item.kind in ('table', 'figure')


@pytest.mark.parametrize('paper', paper_folders())
def test_every_page_shows_notebooks_that_some_profile_runs(paper, plans):
    ran = {k.split('/')[1] for profile in COLLECTIONS for k in plans[profile] if k.startswith(f'{paper}/')}
    for section in load_paper(paper).page:
        assert {o.partition('/')[0] for o in section['shows']} <= ran, section['title']


def declared_keys(paper):
    "Patterns of the keys that the notebooks of a paper can leave: tables by name, predictions as in `run.result`"
    import re
    keys = set()
    for path in sorted(paper_folders()[paper].glob('*.ipynb')):
        source = '\n'.join(''.join(c['source']) for c in json.loads(path.read_text())['cells']
                           if c['cell_type'] == 'code')
        for call in re.findall(r'run\.table\((.*?)\n(?=\S|$)', source + '\n\n', flags=re.S):
            keys |= {f'{path.stem}/{o}' for o in re.findall(r"'([\w.-]+)'", call)}
        for key in re.findall(r"run\.result\(f?['\"]([^'\"]+)['\"]", source): keys.add(re.sub(r'\{.*\}', '*', key))
    return keys


@pytest.mark.parametrize('paper', ['karam2021', 'sood2021'])
def test_every_claim_can_be_decided_by_some_graph(paper):
    "A claim names tables and predictions that a notebook of its paper leaves"
    from fnmatch import fnmatch
    keys = declared_keys(paper)
    for claim in read_claims(paper).itertuples():
        settings = settings_of(claim.settings)
        named = [settings[k] for k in ('table',) if k in settings]
        if 'table' not in settings: named += [settings[k] for k in ('model', 'other')
                                              if '/' in str(settings.get(k, ''))]
        for key in named: assert any(fnmatch(key, pattern) for pattern in keys), (claim.id, key, sorted(keys))


def test_every_check_that_a_claim_names_exists():
    for paper in paper_folders():
        checks = getattr(paper_module(paper, 'checks'), 'CHECKS', {})
        named = {settings_of(o.settings)['check'] for o in read_claims(paper).itertuples() if o.test == 'audit'}
        assert named <= set(checks), paper
        assert set(checks) <= named, f'{paper} has checks that no claim asks'


def test_the_levels_of_a_paper_can_be_decided_on_its_own_collections():
    "A paper with levels among its claims names the collections that can decide them, and a profile reads one"
    profiles = [checkout()/'workflow'/'profiles'/f'{o}.yaml' for o in COLLECTIONS]
    data = {k for path in profiles for k in yaml.safe_load(path.read_text())['data']}
    for paper in papers_of(load_profile('demo')):
        if not read_claims(paper).test.isin(['reaches', 'table_reaches', 'every_group']).any(): continue
        assert set(load_paper(paper).collections) & data, paper


@pytest.mark.slow
def test_the_tutorial_of_a_new_paper_runs(tmp_path, warm_kernels):
    "From a folder of images to runs, a table beside a published value, a claim with a verdict and a page"
    nb = ROOT/'nbs'/'papers'/'adding_a_paper.ipynb'
    command = [sys.executable, '-m', 'papermill', str(nb), str(tmp_path/'nb.ipynb'), '-k', 'python3']
    res = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert res.returncode == 0, res.stderr[-2000:]


def test_where_names_notebook_function_and_command():
    res = subprocess.run([sys.executable, '-m', 'radinet_nb.cli', 'where', 'table5'], capture_output=True, text=True,
                         cwd=ROOT)
    assert res.returncode == 0, res.stderr
    assert 'nbs/papers/karam2021/targets.ipynb' in res.stdout
    assert 'papers.karam2021.target_tables.baseline_table' in res.stdout
    assert 'radinet reproduce --only karam2021/table5' in res.stdout
