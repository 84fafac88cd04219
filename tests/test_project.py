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
    for name in ('nbs', 'radinet_nb'): shutil.copytree(ROOT/name, folder/name,
                                                       ignore=shutil.ignore_patterns('__pycache__',
                                                                                     '.ipynb_checkpoints'))
    for name in ('pyproject.toml', 'settings.ini', 'setup.py'): shutil.copy(ROOT/name, folder)
    return folder


def nbdev(command, folder):
    env = os.environ | {'PYTHONPATH': str(folder)}
    res = subprocess.run([Path(sys.executable).with_name(command)], cwd=folder, env=env, capture_output=True, text=True)
    assert res.returncode == 0, res.stderr[-2000:]


def test_the_library_is_what_the_notebooks_export(copy):
    nbdev('nbdev-export', copy)
    for path in sorted((ROOT/'radinet_nb').rglob('*.py')):
        name = path.relative_to(ROOT)
        assert (copy/name).read_text() == path.read_text(), f'{name} differs: run nbdev-export'


def code_cells(path): return [''.join(c['source']) for c in json.loads(path.read_text())['cells']
                              if c['cell_type'] == 'code']


RUN = [p for p in NOTEBOOKS if {'papers', 'steps'} & set(p.parts) and not any('default_exp' in c
                                                                              for c in code_cells(p))
                                                                              and p.stem != 'adding_a_paper']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: str(p.relative_to(ROOT/'nbs')))
def test_a_notebook_is_clean(path):
    text = path.read_text()
    assert len(text) < 400_000
    for cell in json.loads(text)['cells']:
        if cell['cell_type'] != 'code': continue
        assert cell['execution_count'] is None and set(cell['metadata']) <= {'tags'}, 'run nbdev-clean'
        if path in RUN: assert not cell['outputs'], 'papermill runs it elsewhere: clear its outputs'
        # a lesson keeps what a reader wants to see (make lessons), and nothing of the machine that it ran on
        for output in cell['outputs']:
            assert output['output_type'] in ('display_data', 'stream') and output.get('name') != 'stderr'
            words = ''.join(output.get('text', [])) + json.dumps({k: v for k, v in output.get('data', {}).items()
                                                                  if not k.startswith('image/')})
            assert not re.search(r'(?<![\w.])/(?:tmp|home|root|work|Users|var)/', words), 'it names a path'


@pytest.mark.parametrize('path', RUN, ids=lambda p: '/'.join(p.parts[-2:]))
def test_a_run_notebook_takes_parameters_defines_nothing_and_checks_something(path):
    cells = json.loads(path.read_text())['cells']
    assert sum('parameters' in c['metadata'].get('tags', []) for c in cells) == 1
    assert not any(line.startswith('def ') for c in code_cells(path) for line in c.splitlines())
    assert any(word in c for c in code_cells(path) for word in ('assert ', 'test_eq',
                                                                'test_close')), 'nothing that it shows is checked'


def test_a_public_name_is_defined_in_one_room():
    import ast
    from collections import defaultdict
    found = defaultdict(set)
    for path in sorted((ROOT/'radinet_nb').rglob('*.py')):
        if path.name in ('_modidx.py', '__init__.py'): continue
        for node in ast.parse(path.read_text()).body:
            # each paper's graph is called graph: the engine asks for it by that name
            if (path.name, getattr(node, 'name', '')) == ('graph.py', 'graph'): continue
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_'):
                found[node.name].add(str(path.relative_to(ROOT)))
    assert {k: v for k, v in found.items() if len(v) > 1} == {}


LEVELS = [{'data', 'synthetic'}, {'learning'}, {'analysis', 'annotation', 'evidence', 'models'}, {'results'},
          {'papers'}]


def test_imports_run_downwards():
    "papers > results > analysis, annotation, evidence, models > learning > data, synthetic; data imports no other"
    level = {room: i for i, rooms in enumerate(LEVELS) for room in rooms}
    upward = []
    for path in sorted((ROOT/'radinet_nb').rglob('*.py')):
        room = path.relative_to(ROOT/'radinet_nb').parts[0]
        if room not in level: continue
        for name in re.findall(r'^\s*from (\.+[\w.]*|radinet_nb[\w.]*) import', path.read_text(), flags=re.M):
            base = path.parents[len(name) - len(name.lstrip('.')) - 1] if name.startswith('.') else ROOT
            parts = (base/name.lstrip('.').replace('.', '/')).relative_to(ROOT/'radinet_nb').parts
            if not parts or parts[0] not in level: continue
            if level[parts[0]] > level[room] or (room == 'data'
                                                 and parts[0] != 'data'): upward.append((str(path.relative_to(ROOT)),
                                                                                         name))
    assert upward == []


def test_lines_end_by_column_120():
    wide = [(path.relative_to(ROOT).as_posix(), line) for path in NOTEBOOKS for c in code_cells(path)
            for line in c.splitlines() if len(line) > 120]
    assert wide == []


def test_every_parameter_of_a_public_function_has_its_docment():
    import ast
    bare = []
    for path in sorted((ROOT/'radinet_nb').rglob('*.py')):
        if path.name in ('_modidx.py', '__init__.py'): continue
        text = path.read_text()
        lines = text.splitlines()
        for node in ast.parse(text).body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith('_'): continue
            args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs,
                    *filter(None, [node.args.vararg, node.args.kwarg])]
            bare += [f'{path.name}: {node.name}({o.arg})' for o in args if o.arg != 'self'
                     and '#' not in lines[o.lineno - 1]]
            if not ast.get_docstring(node): bare.append(f'{path.name}: {node.name} has no docstring')
    assert bare == []


def test_no_lesson_reaches_outside_the_checkout():
    outside = [(p.name, line) for p in NOTEBOOKS for c in code_cells(p) for line in c.splitlines()
               if re.search(r"shared/data|'\.\./|tests'", line)]
    assert outside == []


def test_readme_is_in_step_with_its_notebook(tmp_path):
    res = run('nbconvert', '--to', 'markdown', '--log-level', 'WARN', '--output-dir', str(tmp_path), '--output',
              'README', 'nbs/index.ipynb')
    assert res.returncode == 0, res.stderr
    assert (tmp_path/'README.md').read_text() == (ROOT/'README.md').read_text(), 'make readme'


def test_the_readme_shows_the_committed_results():
    "The table is made from the figures in the tree, the picture is there, the badges say what setup says"
    import pandas as pd

    from radinet_nb.papers.karam2021.readme_tables import (gains_markdown, groups_markdown, results_markdown,
                                                           survivors_markdown)
    from radinet_nb.results.lead import items_markdown, kept_markdown
    from radinet_nb.workflow.papers import item_source, load_paper
    from radinet_nb.workflow.plan import papers_of
    from radinet_nb.workflow.profiles import load_profile
    text = (ROOT/'README.md').read_text()
    kept = {o: pd.read_csv(ROOT/'figures'/'open'/'karam2021'/f'{o}.csv')
            for o in ('fig10', 'target_differences', 'target_sizes')}
    assert results_markdown(kept['fig10'], {k: o['start'] for k, o in load_paper('karam2021').models.items()}) in text
    named = [load_paper(o) for o in papers_of(load_profile('demo'))]
    assert items_markdown(named, lambda item: item_source(item)[1]) in text
    assert gains_markdown(kept['target_differences'], kept['target_sizes']) in text
    seeds = int(kept['fig10'].seeds.max())
    # nothing more than survives
    assert survivors_markdown(kept['target_differences'], kept['target_sizes'], seeds) in text
    heads = dict(all='all parts: AUC (95 %)', hand='hands: AUC (95 %)')
    assert groups_markdown(json.loads((ROOT/'benchmarks'/'groups.json').read_text()), heads) in text
    spread = kept['fig10'][kept['fig10'].metric == 'auc'].set_index('model').seed_sd
    for model in ('RadiNet_wrist', 'ImageNet_wrist'): assert f'{spread[model]:.3f}' in text, model
    for item in (o for paper in named for o in paper.items.values() if o.readme):
        assert kept_markdown(item, ROOT/'figures'/'open') in text, f'{item.paper}/{item.id}'
    for path in re.findall(r'\]\((?!https?:)([^)#]+)\)', text): assert (ROOT/path).exists(), path
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini')
    low, high = config['DEFAULT']['min_python'], config['DEFAULT']['max_python']
    assert f'Python {low} to 3.{int(high.split(".")[1]) - 1}' in text and config['DEFAULT']['license'] in text


def test_the_readme_counts_the_alarms_of_the_benchmark():
    found = json.loads((ROOT/'benchmarks'/'evidence.json').read_text())
    honest, means = found['random_tables'], found['honest_means'].values()
    said = ' '.join((ROOT/'README.md').read_text().split())
    assert (f'none on {honest["rows"]} honest rows of single matrices, none on {sum(o["rows"] for o in means)} honest '
            'means') in said
    assert honest['false_alarms'] == honest['missed'] == sum(o['false_alarms'] for o in means) == 0


def test_ruff_finds_nothing():
    res = run('ruff', 'check', 'nbs', 'tests', 'benchmarks', 'setup.py')
    assert res.returncode == 0, res.stdout[-3000:]


def test_the_version_is_one():
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini')
    import radinet_nb
    assert config['DEFAULT']['version'] == radinet_nb.__version__


def test_importing_costs_nothing():
    code = ("import sys, time; t = time.perf_counter(); import radinet_nb; dt = time.perf_counter() - t; "
            "print('torch' in sys.modules, dt)")
    best = min(float(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.split()[1])
               for _ in range(5))
    assert 'True' not in subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout
    assert best < 0.3


def test_no_file_is_large():
    listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    assert [p for p in listed if (ROOT/p).exists() and (ROOT/p).stat().st_size > 2**20] == []
