"Every library notebook runs from top to bottom: its lessons are the tests of its module."
import os
from pathlib import Path

import pytest
from nbdev.doclinks import nbglob

from radinet_nb.workflow.warm import WarmProcess, ask_warm

ROOT = Path(__file__).resolve().parents[1]
# notebooks that papermill runs with parameters are no lessons: tests/test_reproduce.py runs them
RUN = {p for room in ('papers', 'steps') for p in (ROOT/'nbs'/room).rglob('*.ipynb') if '"parameters"' in p.read_text()}
LESSONS = [p for p in map(Path, sorted(nbglob(ROOT/'nbs'))) if p not in RUN and p.stem != 'adding_a_paper']
# what most lessons import, once a process of tests; each lesson is a fork and sees what no other has changed
MODULES = ['nbdev.test', 'fastcore.test', 'matplotlib.pyplot', 'pandas', 'pandera.pandas', 'scipy.ndimage',
           'radinet_nb.learning.transfer', 'radinet_nb.data.hospital', 'radinet_nb.synthetic.hospital',
           'torch._inductor'] # what torch imports when it is asked for deterministic algorithms
ONE_THREAD = {'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'agg'}
CODE = '''
import sys
from nbdev.config import get_config
from nbdev.test import test_nb
flags = get_config().tst_flags
sys.exit(not test_nb(sys.argv[2], skip_flags=flags.split() if isinstance(flags, str) else flags, basepath='.')[0])
'''


@pytest.fixture(scope='session')
def warm():
    "A process that has imported what lessons import; `RADINET_WARM` does not name it, for lessons make their own"
    with pytest.MonkeyPatch.context() as patch:
        for k, v in ONE_THREAD.items(): patch.setenv(k, v) # libraries ask when they are imported
        with WarmProcess(MODULES) as process:
            patch.undo()
            os.environ.pop('RADINET_WARM')
            yield process


@pytest.mark.parametrize('lesson', LESSONS, ids=lambda o: o.relative_to(ROOT/'nbs').with_suffix('').as_posix())
def test_lesson(lesson, warm, monkeypatch):
    env = os.environ | ONE_THREAD
    monkeypatch.setenv('RADINET_WARM', warm.path)
    assert ask_warm('code', [CODE, str(lesson)], cwd=str(ROOT), env=env).wait() == 0
