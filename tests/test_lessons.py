"Every library notebook runs from top to bottom: its lessons are the tests of its module."
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_lessons():
    command = [Path(sys.executable).with_name('nbdev-test'), '--n-workers', str(min(4, os.cpu_count())), '--skip-folder-re', 'papers', '--timing']
    env = os.environ | {'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'agg'}
    res = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    print(res.stdout[-3000:])
    assert res.returncode == 0, res.stdout[-3000:] + res.stderr[-3000:]
