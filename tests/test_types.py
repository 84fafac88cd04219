"The types that docments state hold among themselves, and a checker sees a call that is wrong"
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip('mypy')
ROOT = Path(__file__).resolve().parents[1]
USE = '''
import pandas as pd
from radinet_nb.analysis.froc import tally
from radinet_nb.data.cache import ImageCache
from radinet_nb.data.runs import OpenRun
from radinet_nb.errors import InputError
from radinet_nb.learning.backbones import check_backbone
from radinet_nb.learning.stages import Stage
from radinet_nb.learning.tasks import Task
from radinet_nb.learning.transfer import learner_from_frame
from radinet_nb.models.prediction import predict_files
name: str = check_backbone('resnet18')
task = Task('side', 'side', ('left', 'right'))
stage = Stage('one', task=task, seed=3)
vocab = learner_from_frame(pd.DataFrame(), 'cache', task='fracture', pixels=64, shares=(.6, .2, .2)).dls.vocab
rows = predict_files('model', ['image.png'], public=True).table
rows_in_cache: int = len(ImageCache('cache').rows_of(['image.png']))
done = OpenRun('run').note(synthetic=True).finish().record
hits = tally([], [], limit=.5).hits
raise InputError('what', 'where', 'mend')
'''
WRONG = '''
from radinet_nb.analysis.froc import tally
from radinet_nb.data.cache import ImageCache
from radinet_nb.data.runs import OpenRun
from radinet_nb.learning.backbones import check_backbone
from radinet_nb.learning.tasks import Task
from radinet_nb.learning.transfer import learner_from_frame
from radinet_nb.models.prediction import predict_files
number: int = check_backbone('resnet18')
Task('side', 3)
check_backbone(nam='resnet18')
learner_from_frame(None, 'cache', pixels='64')
predict_files('model', ['image.png']).rows
ImageCache('cache').rows_in(['image.png'])
OpenRun('run', seed='3')
tally([], [], limits=.5)
'''


def test_a_checker_accepts_the_package_and_refuses_a_wrong_call(tmp_path):
    for name, text in dict(use=USE, wrong=WRONG).items(): (tmp_path/f'{name}.py').write_text(text)
    parts = tomllib.loads((ROOT/'pyproject.toml').read_text())['tool']['mypy']['files']
    files = [*(ROOT/o for o in parts), tmp_path/'use.py', tmp_path/'wrong.py']
    options = ['--config-file', ROOT/'pyproject.toml', '--cache-dir', tmp_path/'cache', '--no-error-summary']
    res = subprocess.run([sys.executable, '-m', 'mypy', *options, *files], cwd=ROOT, capture_output=True, text=True)
    found = [o for o in res.stdout.splitlines() if ': error:' in o]
    assert [o for o in found if 'wrong.py' not in o] == [], res.stdout + res.stderr
    assert sorted({int(o.split(':')[1]) for o in found}) == [*range(9, 17)]
