"`pip install .` into a clean environment gives a library that works away from the checkout: the README's five lines."
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def five_lines():
    cells = json.loads((ROOT/'nbs'/'index.ipynb').read_text())['cells']
    text = '\n'.join(''.join(c['source']) for c in cells)
    return text.split('```python\n')[1].split('```')[0]


def share_bytecode(python):
    "Copy compiled modules of this environment; Python takes those of the same files, else it compiles torch for 15 s"
    here = Path(sysconfig.get_path('purelib'))
    there = next((python.parents[1]/'lib').glob('python*'))/'site-packages'
    for folder, names, _ in os.walk(here):
        to = there/Path(folder).relative_to(here)
        if not to.is_dir(): names.clear()
        elif '__pycache__' in names and not (to/'__pycache__').exists():
            shutil.copytree(Path(folder)/'__pycache__', to/'__pycache__')


@pytest.fixture(scope='module')
def clean(tmp_path_factory):
    "The Python of a new environment with the package and its requirements, and nothing of the checkout"
    folder = tmp_path_factory.mktemp('clean')
    source = folder/'source'
    ignore = shutil.ignore_patterns('.venv', 'runs', '.git', '*.egg-info', 'build', '__pycache__')
    shutil.copytree(ROOT, source, ignore=ignore)
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')}
    uv = shutil.which('uv') or Path(sys.executable).with_name('uv')
    subprocess.run([sys.executable, '-m', 'venv', folder/'venv', *([] if not Path(uv).exists() else ['--without-pip'])],
                   check=True, env=env)
    python = folder/'venv'/'bin'/'python'
    install = [uv, 'pip', 'install', '-q', '--python', python] if Path(uv).exists() else [python, '-m', 'pip',
                                                                                          'install', '-q']
    subprocess.run([*install, '-c', ROOT/'constraints.txt', source], check=True, env=env, cwd=folder)
    shutil.rmtree(source)
    share_bytecode(python)
    return python, env


def test_the_library_alone_is_small(clean):
    "Neither Jupyter nor what runs notebooks, nor a decoder under the GPL; what needs them says what to install"
    python, env = clean
    code = "from importlib.metadata import distributions; print(*{d.metadata['Name'].lower() for d in distributions()})"
    res = subprocess.run([python, '-c', code], env=env, capture_output=True, text=True, check=True)
    there = set(res.stdout.split())
    unwanted = {'jupyterlab', 'ipykernel', 'nbconvert', 'papermill', 'snakemake', 'nbdev', 'pylibjpeg-libjpeg', 'onnx',
                'jupyter-client', 'notebook', 'ipython', 'sphinx', 'pytest', 'seaborn', 'matplotlib-venn'}
    assert there & unwanted == set() and {'fastai', 'python-gdcm', 'typer'} <= there
    assert len(there) < 140, sorted(there)


def test_the_package_says_that_it_is_typed(clean):
    python, env = clean
    code = "from importlib.resources import files; print((files('radinet_nb')/'py.typed').is_file())"
    assert subprocess.run([python, '-c', code], env=env, capture_output=True, text=True).stdout.strip() == 'True'


@pytest.mark.slow
def test_the_five_lines_of_the_readme_train(clean, tmp_path):
    python, env = clean
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        Image.fromarray(rng.integers(0, 255, (40, 30), dtype=np.uint8)).save(tmp_path/f'{i}.png')
        rows.append(dict(path=str(tmp_path/f'{i}.png'), label=i % 2, patient=f'p{i//2}' if i % 4 < 2 else f'q{i}'))
    pd.DataFrame(rows).to_csv(tmp_path/'radiographs.csv', index=False)
    code = five_lines()
    assert len(code.strip().splitlines()) == 5
    code = code.replace('densenet169', 'densenet51').replace('pixels=224', 'pixels=32').replace('warmup=2, epochs=10',
                                                                                                'warmup=0, epochs=1')
    code += '\nimport radinet_nb; print(radinet_nb.__file__, len(learn.studies))'
    res = subprocess.run([python, '-c', code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert res.returncode == 0, res.stderr[-2000:]
    assert str(ROOT) not in res.stdout and res.stdout.split()[-1] == '60'


def test_the_command_line_says_that_it_needs_a_checkout(clean, tmp_path):
    python, env = clean
    res = subprocess.run([python.with_name('radinet'), 'reproduce'], cwd=tmp_path, env=env, capture_output=True,
                         text=True)
    assert res.returncode == 2 and 'clone the repository' in res.stderr and len(res.stderr.strip().splitlines()) == 1


def test_the_published_numbers_and_the_style_travel(clean, tmp_path):
    python, env = clean
    code = ("from radinet_nb.evidence.published import published; from radinet_nb.results.page import stylesheet; "
            "print(len(published('karam2021')), len(stylesheet()) > 100)")
    res = subprocess.run([python, '-c', code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert res.returncode == 0 and res.stdout.split()[1] == 'True', res.stderr[-1000:]
