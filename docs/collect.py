"Lay out the sources of the site in one folder: tasks, notebooks, the reference, the item map, the open results"
import ast
import json
import re
import shutil
import sys
from pathlib import Path

from radinet_nb.data.notebooks import paper_folders
from radinet_nb.papers.sood2021.freezing import freezing_markdown
from radinet_nb.results.learned import learned_markdown
from radinet_nb.workflow.papers import load_paper

ROOT = Path(__file__).resolve().parent.parent
#: rooms in the way of the data, with what each is for: the reading order
ROOMS = dict(data='From files to a study table and batches', synthetic='Radiographs that are made here',
             learning='Networks, stages, schedules', analysis='What predictions say',
             annotation='From reports to labels', evidence='What printed numbers imply', models='A model for others',
             results='Tables, figures, claims, the page', workflow='How everything is run',
             steps='Notebooks that any paper may run')
#: where a library notebook is read first in its room, the others follow by name
FIRST = dict(data=['schema', 'studies', 'collections', 'dicom', 'ingest', 'cache', 'loaders', 'runs'],
             learning=['tasks', 'networks', 'blocks', 'stages', 'schedules', 'learners', 'transfer'],
             analysis=['metrics', 'roc', 'significance', 'resampling', 'froc', 'explain'],
             annotation=['reports', 'rules', 'annotator', 'annotate'], evidence=['solver', 'audit'],
             synthetic=['phantom', 'hospital'], workflow=['papers', 'profiles', 'graph', 'reproduce'])


#: what a page of a task writes where kept results belong -> what stands there on the site
KEPT = {'<!-- what to freeze: figures/open/sood2021 -->': lambda: freezing_markdown(ROOT/'figures'/'open'/'sood2021')}


def heading(path):
    "Title and first sentence of a notebook"
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    lines = ''.join(next(c['source'] for c in cells if c['cell_type'] == 'markdown')).splitlines()
    lead = next((o for o in lines if o.startswith('> ')), '> ')
    return lines[0].lstrip('# '), lead.removeprefix('> ')


def in_order(room, paths):
    "The notebooks of a room in reading order"
    first = {name: i for i, name in enumerate(FIRST.get(room, []))}
    return sorted(paths, key=lambda o: (first.get(o.stem, len(first)), o.stem))


def level_headings(text, deepest=1):
    "Headings that go down one step at a time from `deepest`, which a table of contents needs; and where it ends"
    res, fenced = [], False
    for line in text.splitlines(True):
        if line.startswith('```'): fenced = not fenced
        marks = re.match(r'(#+) ', line)
        if marks and not fenced:
            depth = min(len(marks[1]), deepest + 1)
            line, deepest = '#'*depth + line[len(marks[1]):], depth
        res.append(line)
    return ''.join(res), deepest


def copy_notebook(path, target):
    "A notebook of the site: its directives go, its headings become those of one page"
    notebook = json.loads(path.read_text(encoding='utf-8'))
    deepest = 1
    for cell in notebook['cells']:
        if cell['cell_type'] == 'markdown':
            text, deepest = level_headings(''.join(cell['source']), deepest)
            cell['source'] = text.splitlines(True)
        else: cell['source'] = [o for o in cell['source'] if not re.match(r'#\| ?(default_exp|export)\b', o)]
    notebook['cells'] = [c for c in notebook['cells'] if ''.join(c['source']).strip()]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook), encoding='utf-8')


def header_of(node, source):
    "The lines of a function or class from its name to its docstring, comments included"
    first = node.body[0]
    return '\n'.join(source[node.lineno - 1:first.lineno - 1]) or source[node.lineno - 1]


def reference_part(module, path):
    "Public functions of a module: signature with its docments, and what each does; empty where there are none"
    text = path.read_text(encoding='utf-8')
    tree, source = ast.parse(text), text.splitlines()
    public = next((ast.literal_eval(o.value) for o in tree.body if isinstance(o, ast.Assign)
                   and getattr(o.targets[0], 'id', '') == '__all__'), [])
    lines = []
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)): continue
        patched = any('patch' in ast.unparse(o) for o in node.decorator_list)
        if node.name not in public and not patched: continue
        doc = (ast.get_docstring(node) or '').strip()
        lines += [f'### {node.name}', '', '```python', header_of(node, source), '```', '', doc, '']
    about = (ast.get_docstring(tree) or '').partition('\n')[0]
    return '\n'.join([f'## {module}', '', about, '', *lines]) if lines else ''


def write_reference(out):
    "A page for each room, with its modules one after the other"
    (out/'reference').mkdir()
    rooms = {}
    for path in sorted((ROOT/'radinet_nb').rglob('*.py')):
        if path.name.startswith('_'): continue
        module = '.'.join(path.relative_to(ROOT/'radinet_nb').with_suffix('').parts)
        part = reference_part(module, path)
        if part: rooms.setdefault(module.rpartition('.')[0] or 'radinet_nb', []).append(part)
    for room, parts in rooms.items():
        (out/'reference'/f'{room}.md').write_text(f'# {room}\n\n' + '\n'.join(parts), encoding='utf-8')
    tree = toctree('Rooms', [(o, o) for o in rooms], '')
    (out/'reference'/'index.md').write_text('# Reference\n\nEvery public function by room, with the meaning, shape '
                                            f'and unit of what it takes and gives.\n\n{tree}\n')


def toctree(title, entries, under):
    "A part of the table of contents"
    lines = ''.join(f'{name} <{under}{to}>\n' for name, to in entries)
    return f'```{{toctree}}\n:caption: {title}\n:maxdepth: 1\n\n{lines}```'


def write_lessons(out):
    "The library's notebooks by room, each page of a room with the first sentence of its notebooks"
    for room, what in ROOMS.items():
        paths = in_order(room, (ROOT/'nbs'/room).rglob('*.ipynb'))
        rows = []
        for path in paths:
            to = path.relative_to(ROOT/'nbs'/room).with_suffix('')
            copy_notebook(path, out/'lessons'/room/to.with_suffix('.ipynb'))
            title, lead = heading(path)
            rows.append((title, to.as_posix(), lead))
        listed = '\n'.join(f'- [{title}]({to}.ipynb): {lead}' for title, to, lead in rows)
        tree = toctree(room, [(title, to) for title, to, _ in rows], '').replace(':maxdepth', ':hidden:\n:maxdepth')
        (out/'lessons'/room/'index.md').write_text(f'# {room}: {what[0].lower()}{what[1:]}\n\n{listed}\n\n{tree}\n')
    tree = toctree('Rooms', [(f'{room}: {what[0].lower()}{what[1:]}', f'{room}/index') for room, what in ROOMS.items()],
                   '')
    (out/'lessons'/'index.md').write_text('# Lessons\n\nEvery part of the library is a notebook: prose, code, and a '
                                          'check of the code against something that does not depend on it.\n\n'
                                          f'{tree}\n')


def room_of(path):
    "The page of the reference that holds a module: `radinet_nb/analysis/froc` to `analysis`"
    return '.'.join(path.split('/')[1:-1]) or 'radinet_nb'


def kept_results(paper, out):
    "The kept open results of a paper as Markdown: its tables and pictures beside what each shows"
    folder = ROOT/'figures'/'open'/paper.id
    if not folder.is_dir(): return ''
    (out/'papers'/'open'/paper.id).mkdir(parents=True, exist_ok=True)
    parts = []
    for name, item in paper.items.items():
        picture = next((folder/f'{o}.{end}' for o in (name, item.key) for end in ('svg', 'png')
                        if (folder/f'{o}.{end}').exists()), None)
        if picture is None: continue
        shutil.copy(picture, out/'papers'/'open'/paper.id/picture.name)
        parts.append(f'### {name}: {item.shows}\n\n![{item.shows}](open/{paper.id}/{picture.name})')
    return '## Open results\n\nOn openly licensed radiographs, with the commands of the README.\n\n' \
        + '\n\n'.join(parts) + '\n\n' if parts else ''


def executed_notebooks(id, out):
    "Copy the executed notebooks that are kept of a paper, beside its kept pictures; their names"
    target = out/'papers'/'open'/id/'notebooks'
    paths = sorted((ROOT/'figures'/'open'/id/'notebooks').glob('*.md'))
    for path in paths:
        target.mkdir(parents=True, exist_ok=True)
        text, _ = level_headings(path.read_text(encoding='utf-8'))
        (target/path.name).write_text(text, encoding='utf-8')
    return [o.stem for o in paths]


def write_papers(out):
    "A page for each paper: its items, its kept open results, its notebooks, and those that were executed for them"
    (out/'papers').mkdir()
    for id, folder in paper_folders().items():
        paper, ran = load_paper(id), executed_notebooks(id, out)
        links = {o: f'[`{o}`](open/{id}/notebooks/{o}.md)' for o in ran}
        rows = '\n'.join(f'| `{name}` | {item.shows} | {links.get(item.notebook, f"`{item.notebook}`")} | '
                         f'`radinet reproduce --only {id}/{name}` |' for name, item in paper.items.items())
        paths = sorted(folder.glob('*.ipynb'))
        for path in paths: copy_notebook(path, out/'papers'/id/path.name)
        tree = toctree('Notebooks', [(heading(o)[0], f'{id}/{o.stem}') for o in paths], '')
        if ran: tree += '\n\n' + toctree('Executed on open radiographs', [(o, o) for o in ran], f'open/{id}/notebooks/')
        text = (f'# {id}\n\n{paper.title}\n\n## Items\n\n| item | what it shows | notebook | command |\n'
                f'| --- | --- | --- | --- |\n{rows}\n\n{kept_results(paper, out)}## Notebooks\n\n{tree}\n')
        (out/'papers'/f'{id}.md').write_text(text)
    others = sorted((ROOT/'nbs'/'papers').glob('*.ipynb'))
    for path in others: copy_notebook(path, out/'papers'/path.name)
    entries = [(id, id) for id in paper_folders()] + [(heading(o)[0], o.stem) for o in others]
    (out/'papers'/'index.md').write_text('# Papers\n\nA paper is a folder of `nbs/papers`: what is run, what is '
                                         f'claimed, what was printed.\n\n{toctree("Papers", entries, "")}\n')


def write_learned(out):
    "What was learned on open radiographs, from the kept tables"
    papers = [load_paper(o) for o in paper_folders()]
    text = learned_markdown(papers, ROOT/'figures'/'open')
    about = ('Answers from open radiographs (FracAtlas), written from the tables in `figures/open`: effects, '
             'intervals over patients and trainings, and what could not be decided.')
    (out/'learned.md').write_text(f'# What was learned\n\n{about}\n\n{text}\n', encoding='utf-8')


def write_start(out):
    "README as the first page; its links lead to the pages of the site"
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    pictures = re.findall(r'!\[[^\]]*\]\((figures/[^)]+)\)', text)
    for path in pictures:
        (out/path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT/path, out/path)
    text = re.sub(r'!\[[^\]]*\]\(https?:[^)]*\)\s?', '', text)

    def moved(match):
        words, to = match[1], match[2]
        notebook = re.fullmatch(r'nbs/(papers/.+|[a-z]+/.+)\.ipynb', to)
        module = re.fullmatch(r'(radinet_nb/.+)\.py', to)
        if notebook and notebook[1].startswith('papers/'): return f'[{words}]({notebook[1]}.ipynb)'
        if notebook: return f'[{words}](lessons/{notebook[1]}.ipynb)'
        if module: return f'[{words}](reference/{room_of(module[1])}.md)'
        executed = re.fullmatch(r'figures/(open/.+/notebooks/.+\.md)', to)
        if executed: return f'[{words}](papers/{executed[1]})'
        return match[0] if to.startswith(('http', '#', 'figures/')) else words
    text, _ = level_headings(re.sub(r'(?<!!)\[([^\]]*)\]\(([^)]+)\)', moved, text))
    tasks = sorted((ROOT/'docs'/'tasks').glob('*.md'))
    (out/'tasks').mkdir()
    for path in tasks:
        page = path.read_text(encoding='utf-8')
        for mark in KEPT:
            if mark in page: page = page.replace(mark, KEPT[mark]())
        page = re.sub(r'<!-- (end of )?cost -->\n', '', page) # between them benchmarks/paper_cost.py writes
        (out/'tasks'/path.name).write_text(page, encoding='utf-8')
    names = [(path.read_text().splitlines()[0].lstrip('# '), f'tasks/{path.stem}') for path in tasks]
    parts = [('What was learned', 'learned'),
             *((o, f'{o.lower()}/index') for o in ('Papers', 'Lessons', 'Reference'))]
    trees = toctree('What you want to do', names, ''), toctree('Read', parts, '')
    trees = '\n\n'.join(o.replace(':maxdepth', ':hidden:\n:maxdepth') for o in trees)
    (out/'index.md').write_text(f'{text}\n\n{trees}\n', encoding='utf-8')


def collect(out):
    "Write all sources of the site to a folder that is emptied first"
    out = Path(out)
    if out.exists(): shutil.rmtree(out)
    out.mkdir(parents=True)
    shutil.copytree(ROOT/'docs'/'_static', out/'_static')
    for write in write_start, write_learned, write_papers, write_lessons, write_reference: write(out)


if __name__ == '__main__': collect(sys.argv[1])
