"The tree agrees with itself: notebooks, exported library, README, metadata."
import json
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


def run(*args, cwd=ROOT): return subprocess.run([sys.executable, '-m', *args], cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A copy of what the notebooks decide"
    folder = tmp_path_factory.mktemp('copy')
    for name in ('nbs', 'radinet_nb'): shutil.copytree(ROOT/name, folder/name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for name in ('pyproject.toml', 'settings.ini', 'setup.py'): shutil.copy(ROOT/name, folder)
    return folder


def nbdev(command, folder):
    env = os.environ | {'PYTHONPATH': str(folder)}
    res = subprocess.run([Path(sys.executable).with_name(command)], cwd=folder, env=env, capture_output=True, text=True)
    assert res.returncode == 0, res.stderr[-2000:]


def test_the_library_is_what_the_notebooks_export(copy):
    nbdev('nbdev-export', copy)
    for path in sorted((ROOT/'radinet_nb').rglob('*.py')):
        assert (copy/path.relative_to(ROOT)).read_text() == path.read_text(), f'{path.relative_to(ROOT)} differs: run nbdev-export'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: str(p.relative_to(ROOT/'nbs')))
def test_a_notebook_is_clean(path):
    for cell in json.loads(path.read_text())['cells']:
        if cell['cell_type'] != 'code': continue
        assert not cell['outputs'] and cell['execution_count'] is None, 'clear the outputs: nbdev-clean'
        assert set(cell['metadata']) <= {'tags'}


@pytest.mark.parametrize('path', [p for p in NOTEBOOKS if 'papers' in p.parts], ids=lambda p: '/'.join(p.parts[-2:]))
def test_a_paper_notebook_takes_parameters_and_defines_nothing(path):
    cells = json.loads(path.read_text())['cells']
    assert sum('parameters' in c['metadata'].get('tags', []) for c in cells) == 1
    assert not any(line.startswith('def ') for c in cells if c['cell_type'] == 'code' for line in ''.join(c['source']).splitlines())


def test_readme_is_in_step_with_its_notebook(tmp_path):
    res = run('nbconvert', '--to', 'markdown', '--log-level', 'WARN', '--output-dir', str(tmp_path), '--output', 'README', 'nbs/index.ipynb')
    assert res.returncode == 0, res.stderr
    assert (tmp_path/'README.md').read_text() == (ROOT/'README.md').read_text(), 'make readme'


def test_the_readme_shows_the_committed_results():
    "The table is made from the figures in the tree, the picture is there, the badges say what setup says"
    import pandas as pd

    from radinet_nb.results.exhibits import gains_markdown, results_markdown
    from radinet_nb.results.page import interval_text
    text = (ROOT/'README.md').read_text()
    kept = {o: pd.read_csv(ROOT/'figures'/'open'/f'{o}.csv') for o in ('fig10', 'differences', 'sizes')}
    assert results_markdown(kept['fig10']) in text
    assert gains_markdown(kept['differences'], kept['sizes']) in text
    gaps = kept['differences'].set_index(['target', 'baseline', 'metric'])
    spread = kept['fig10'][kept['fig10'].metric == 'auc'].set_index('model').seed_sd
    for model in ('RadiNet_wrist', 'ImageNet_wrist'): assert f'{spread[model]:.3f}' in text, model
    for target in ('hand', 'leg'): assert interval_text(*gaps.loc[(target, 'none', 'auc'), ['difference', 'low', 'high']]) in text, target
    for path in re.findall(r'\]\((?!https?:)([^)#]+)\)', text): assert (ROOT/path).exists(), path
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini')
    low, high = config['DEFAULT']['min_python'], config['DEFAULT']['max_python']
    assert f'Python {low} to 3.{int(high.split(".")[1]) - 1}' in text and config['DEFAULT']['license'] in text


def test_the_readme_counts_the_alarms_of_the_benchmark():
    found = json.loads((ROOT/'benchmarks'/'evidence.json').read_text())['random_tables']
    assert f'On {found["tables"]:,} random tables without an error it accuses none' in (ROOT/'README.md').read_text()
    assert found['false_alarms'] == 0 and found['missed'] == 0


def test_ruff_finds_nothing():
    res = run('ruff', 'check', 'nbs', 'tests', 'benchmarks', 'setup.py')
    assert res.returncode == 0, res.stdout[-3000:]


def test_the_version_is_one():
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini')
    import radinet_nb
    assert config['DEFAULT']['version'] == radinet_nb.__version__


def test_importing_costs_nothing():
    code = "import sys, time; t = time.perf_counter(); import radinet_nb; dt = time.perf_counter() - t; print('torch' in sys.modules, dt)"
    best = min(float(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.split()[1]) for _ in range(5))
    assert 'True' not in subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout
    assert best < 0.3


def test_no_file_is_large():
    listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    assert [p for p in listed if (ROOT/p).exists() and (ROOT/p).stat().st_size > 2**20] == []
