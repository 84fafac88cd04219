"Run the lessons and keep their small outputs in the notebooks: a reader of the repository sees tables and figures"
import base64
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path

from nbdev.doclinks import nbglob
from PIL import Image

from radinet_nb.data.notebooks import checkout
from radinet_nb.data.runs import write_text
from radinet_nb.workflow.warm import WarmProcess, ask_warm

ROOT = checkout()
MODULES = ['nbdev.test', 'fastcore.test', 'matplotlib.pyplot', 'pandas', 'pandera.pandas', 'scipy.ndimage',
           'radinet_nb.learning.transfer', 'radinet_nb.data.hospital', 'radinet_nb.synthetic.hospital']
ENVIRONMENT = {'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'agg'}
CODE = '''
import sys
from nbdev.test import test_nb
sys.exit(not test_nb(sys.argv[2], basepath='.', save=True)[0])
'''
#: what a reader of the repository can see, the first that there is
SHOWN = ('image/png', 'text/html', 'text/markdown', 'text/plain')
WIDEST, MOST, MOST_LINES = 700, 120_000, 40 # pixels, characters of one output, lines of a printed one
#: what differs from one run, or one machine, to the next
PRIVATE = re.compile(r'(?<![\w.])/(?:tmp|home|root|work|Users|var)/|\bat 0x[0-9a-f]{6,}')


def is_private(text):
    "A text that names a place of this machine, or that no file can hold"
    return bool(PRIVATE.search(text)) or text != text.encode('utf-8', 'ignore').decode()


def lessons():
    "Notebooks that papermill does not run with parameters"
    for path in map(Path, sorted(nbglob(ROOT/'nbs'))):
        if '"parameters"' not in path.read_text(encoding='utf-8') and path.stem != 'adding_a_paper': yield path


def small_picture(encoded):
    "A PNG at most `WIDEST` pixels wide, in 64 colors"
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        image = image.convert('RGB')
        if image.width > WIDEST: image = image.resize((WIDEST, round(image.height*WIDEST/image.width)), Image.LANCZOS)
        file = io.BytesIO()
        image.quantize(64).save(file, 'PNG', optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def kept_output(output):
    "An output as it is kept; None where nothing of it is"
    if output['output_type'] == 'stream':
        if output['name'] != 'stdout': return None
        lines = ''.join(output['text']).splitlines(True)
        text = ''.join(lines[:MOST_LINES]) + ('...\n' if len(lines) > MOST_LINES else '')
        return None if is_private(text) or not text.strip() else output | dict(text=text.splitlines(True))
    if output['output_type'] not in ('display_data', 'execute_result'): return None
    kind = next((o for o in SHOWN if o in output['data']), '')
    names = {kind, 'text/plain'} if kind != 'image/png' else {kind}
    data = {o: output['data'][o] for o in output['data'] if o in names}
    if kind == 'image/png': data = {kind: small_picture(data[kind])}
    text = json.dumps(data)
    if not kind or len(text) > MOST or kind != 'image/png' and is_private(text): return None
    return dict(output_type='display_data', data=data, metadata={})


def keep_outputs(path, executed):
    "Write the outputs of an executed notebook into `path`, and nothing else"
    notebook, ran = (json.loads(Path(o).read_text(encoding='utf-8')) for o in (path, executed))
    outputs = {o['id']: o.get('outputs', []) for o in ran['cells'] if o['cell_type'] == 'code'}
    for cell in notebook['cells']:
        if cell['cell_type'] != 'code': continue
        cell['outputs'] = [o for o in map(kept_output, outputs[cell['id']]) if o]
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + '\n'
    if text != path.read_text(encoding='utf-8'): write_text(path, text)


def main(paths):
    os.environ.update(ENVIRONMENT)
    failed = []
    with WarmProcess(MODULES) as warm:
        for path in map(Path.resolve, paths or lessons()):
            # it runs where it stands, under a name of its own
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix='_', suffix='.ipynb', delete=False) as copy:
                copy.write(path.read_bytes())
            try:
                os.environ['RADINET_WARM'] = warm.path
                if ask_warm('code', [CODE, copy.name], cwd=str(ROOT), env=dict(os.environ)).wait() == 0:
                    keep_outputs(path, copy.name)
                else: failed.append(path)
            finally: os.unlink(copy.name)
    if failed: sys.exit('did not run: ' + ', '.join(str(o.relative_to(ROOT)) for o in failed))


if __name__ == '__main__': main([Path(o) for o in sys.argv[1:]])
