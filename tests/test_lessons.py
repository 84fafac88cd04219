"Every library notebook runs from top to bottom: its lessons are the tests of its module."
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# notebooks that papermill runs with parameters are no lessons: tests/test_reproduce.py runs them
RUN = sorted({p.stem for p in (ROOT/'nbs'/'papers').rglob('*.ipynb') if '"parameters"' in p.read_text()}
             | {'adding_a_paper'})


@pytest.mark.parametrize('args', [('--skip-folder-re', 'papers|steps'),
                                  ('nbs/papers', '--skip-file-re', rf'^({"|".join(RUN)})\.ipynb$')],
                         ids=['library', 'papers'])
def test_lessons(args):
    command = [Path(sys.executable).with_name('nbdev-test'), '--n-workers', str(min(4, os.cpu_count())), '--timing',
               *args]
    env = os.environ | {'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'agg'}
    res = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    print(res.stdout[-3000:])
    assert res.returncode == 0, res.stdout[-3000:] + res.stderr[-3000:]
