"The sources of the site: every link leads somewhere, every printed command and import exists"
import ast
import importlib
import json
import re
import shlex
import sys

import pytest
from typer.main import get_command

from radinet_nb.cli import app
from radinet_nb.data.notebooks import checkout

ROOT = checkout()
TASKS = sorted((ROOT/'docs'/'tasks').glob('*.md'))
sys.path.insert(0, str(ROOT/'docs'))


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The sources of the site"
    from collect import collect
    out = tmp_path_factory.mktemp('site')/'source'
    collect(out)
    return out


def test_tasks_are_numbered_one_by_one():
    assert [o.name.partition('_')[0] for o in TASKS] == [f'{i + 1:02}' for i in range(len(TASKS))]


def texts(path):
    "The Markdown of a page"
    if path.suffix == '.md': return path.read_text(encoding='utf-8')
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    return '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')


def test_every_link_leads_to_a_page(site):
    pages = [*site.rglob('*.md'), *site.rglob('*.ipynb')]
    assert len(pages) > 300
    dead = []
    for page in pages:
        bare = re.sub(r'```.*?```', '', texts(page), flags=re.S)
        for to in re.findall(r'\]\(([^)\s]+)\)', bare):
            if re.match(r'https?:|#|mailto:|attachment:|data:', to): continue
            if not (page.parent/to.partition('#')[0]).exists(): dead.append((page.relative_to(site).as_posix(), to))
    assert dead == []


def test_a_page_shows_the_kept_results_that_it_names(site):
    from radinet_nb.papers.sood2021.freezing import freezing_markdown
    page = (site/'tasks'/'04_what_to_freeze.md').read_text()
    assert freezing_markdown(ROOT/'figures'/'open'/'sood2021') in page
    assert [o.name for o in (site/'tasks').glob('*.md') if '<!--' in o.read_text()] == []


def test_every_notebook_and_module_has_its_page(site):
    notebooks = [o for o in (ROOT/'nbs').rglob('*.ipynb') if o.parent != ROOT/'nbs']
    assert len(list(site.rglob('*.ipynb'))) == len(notebooks)
    listed = '\n'.join(o.read_text() for o in site.rglob('*.md'))
    assert [o.stem for o in notebooks if f'{o.stem}>' not in listed] == []


def commands(text):
    "Every `radinet` command line of a page"
    for block in re.findall(r'```sh\n(.*?)```', text, flags=re.S):
        yield from (shlex.split(line, comments=True)[1:] for line in block.splitlines() if line.startswith('radinet '))


@pytest.mark.parametrize('path', [*TASKS, ROOT/'README.md'], ids=lambda o: o.stem)
def test_every_printed_command_and_option_exists(path):
    known = get_command(app).commands
    for name, *rest in commands(texts(path)):
        options = {o for parameter in known[name].params for o in parameter.opts}
        assert {o for o in rest if o.startswith('--')} <= options, (name, rest)


@pytest.mark.parametrize('path', [*TASKS, ROOT/'README.md'], ids=lambda o: o.stem)
def test_every_printed_import_exists(path):
    for block in re.findall(r'```python\n(.*?)```', texts(path), flags=re.S):
        for node in ast.walk(ast.parse(block)):
            if not isinstance(node, ast.ImportFrom): continue
            module = importlib.import_module(node.module)
            assert all(hasattr(module, o.name) for o in node.names), ast.unparse(node)
