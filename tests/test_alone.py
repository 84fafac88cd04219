"Each notebook of papers and steps runs by plain papermill, at its defaults: `pytest -m alone`, for minutes"
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = [p for room in ('steps', 'papers') for p in sorted((ROOT/'nbs'/room).rglob('*.ipynb'))
             if 'parameters' in p.read_text()
             and 'default_exp' not in p.read_text() and p.name != 'adding_a_paper.ipynb']


@pytest.mark.alone
@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda o: '/'.join(o.parts[-2:]))
def test_a_notebook_runs_alone(notebook, tmp_path):
    command = [sys.executable, '-m', 'papermill', str(notebook), str(tmp_path/'nb.ipynb'), '-k', 'python3', '-p', 'out',
               str(tmp_path/'run')]
    res = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert res.returncode == 0, res.stderr[-2000:]
    assert (tmp_path/'run'/'record.json').is_file()
