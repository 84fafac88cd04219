"Every library notebook runs from top to bottom: its lessons are the tests of its module."
import os
from pathlib import Path

import pytest
from conftest import ONE_THREAD
from nbdev.doclinks import nbglob

from radinet_nb.workflow.warm import ask_warm

ROOT = Path(__file__).resolve().parents[1]
# notebooks that papermill runs with parameters are no lessons: tests/test_reproduce.py runs them
RUN = {p for room in ('papers', 'steps') for p in (ROOT/'nbs'/room).rglob('*.ipynb') if '"parameters"' in p.read_text()}
LESSONS = [p for p in map(Path, sorted(nbglob(ROOT/'nbs'))) if p not in RUN and p.stem != 'adding_a_paper']
KERNEL = 'radinet-warm' # kernels of notebooks that a lesson runs are forks, too; the workflow's lessons make their own
# figures are drawn for nobody: small, and once, where a notebook would draw them large and measure them first
CODE = '''
import sys
from functools import partial
import nbdev.test
from matplotlib_inline.config import InlineBackend
from nbdev.config import get_config
InlineBackend.instance().print_figure_kwargs = dict(dpi=40)
nbdev.test.CaptureShell = partial(nbdev.test.CaptureShell, mpl_format='png')
flags = get_config().tst_flags
flags = flags.split() if isinstance(flags, str) else flags
sys.exit(not nbdev.test.test_nb(sys.argv[2], skip_flags=flags, basepath='.')[0])
'''


@pytest.mark.parametrize('lesson', LESSONS, ids=lambda o: o.relative_to(ROOT/'nbs').with_suffix('').as_posix())
def test_lesson(lesson, warm, monkeypatch):
    env = os.environ | ONE_THREAD
    if lesson.is_relative_to(ROOT/'nbs'/'papers'):
        env |= dict(RADINET_WARM=warm.path, JUPYTER_DEFAULT_PROVISIONER_NAME=KERNEL)
    monkeypatch.setenv('RADINET_WARM', warm.path)
    assert ask_warm('code', [CODE, str(lesson)], cwd=str(ROOT), env=env).wait() == 0
