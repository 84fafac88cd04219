"""The script for a GPU runs on a CPU in small, and nothing that is imported before a fork wakes the card"""
import json
import os
import subprocess
import sys
from pathlib import Path

from radinet_nb.learning.localization.names import METHODS
from radinet_nb.workflow.warm import ask_warm

ROOT = Path(__file__).parent.parent


def test_the_script_for_a_gpu_runs_in_small(tmp_path, warm, monkeypatch):
    "In a fork, so that it need not import what other tests have imported"
    monkeypatch.setenv('RADINET_WARM', warm.path)
    code = 'import runpy, sys; sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], run_name="__main__")'
    args = [code, str(ROOT/'benchmarks/gpu.py'), '--tiny', '--out', str(tmp_path/'gpu.json')]
    assert ask_warm('code', args, cwd=str(tmp_path)).wait() == 0
    got = json.loads((tmp_path/'gpu.json').read_text())
    parts = {'step', 'memory', 'stage', 'similarity', 'features', 'fractals', 'localizer', 'methods', 'detector'}
    assert set(got) >= {*parts, 'torch', 'device'}
    assert len(got['methods']) == 2 and set(got['methods']) <= set(METHODS)
    assert all(o['finite'] for o in got['methods'].values())
    assert got['detector']['finite'] and got['localizer']['step_mib'] > 0
    assert all(o['finite'] and o['cpu_off_by_at_most'] == 0 for o in got['stage'].values())
    assert got['step']['images_a_second'].keys() == {'bare', 'ours', 'fastai'}


def test_no_import_of_the_warm_process_wakes_the_card():
    code = """
import os, sys, torch
def woken(): raise SystemExit('CUDA was woken')
torch._C._cuda_getDeviceCount = torch._C._cuda_init = woken
torch.cuda._is_compiled = lambda: True
from radinet_nb.workflow.staleness import modules_behind
from radinet_nb.workflow.warm import preload
preload(modules_behind(sys.argv[1:]))
assert 'fastai.learner' in sys.modules and not torch.cuda.is_available()
"""
    env = os.environ | {'CUDA_VISIBLE_DEVICES': '', 'PYTORCH_NVML_BASED_CUDA_CHECK': '1'} # as `WarmProcess` sets them
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, str(ROOT/'nbs/steps/stage.ipynb')], env=env,
                          text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
