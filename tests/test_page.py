"The page of a paper, with a browser and without: nothing missing or too wide, no dead link, a verdict a claim"
import ast
import html
import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from radinet_nb.data.notebooks import checkout, find_notebook, paper_folders
from radinet_nb.data.runs import OpenRun
from radinet_nb.papers.karam2021.margins import differences, performance_table
from radinet_nb.results.claims import read_claims
from radinet_nb.results.detected_figures import reliability_figure
from radinet_nb.results.page import browse, find_browser, print_page, render_page
from radinet_nb.results.page_items import FOLDED, Figure
from radinet_nb.results.performance import control_table
from radinet_nb.results.performance_figures import loss_figure, performance_figure
from radinet_nb.results.result_run import ResultRun
from radinet_nb.results.verdicts import VERDICTS

WIDTHS = (390, 1280)
needs_browser = pytest.mark.skipif(not find_browser(),
                                   reason='no Chromium here: install one, or name it in RADINET_BROWSER')


def stage(root, name, skill):
    "A training run without training"
    run = OpenRun(root/'karam2021'/'stage'/f'{name}.seed0', 'steps/stage',
                  dict(chain=['wrist'], target='wrist', variant=''), seed=0)
    run.note(name=name, synthetic=True, schedule='paper', epochs=2, best_epoch=1)
    target, draw = np.arange(160) % 2, np.random.default_rng(len(name)).normal(size=160)
    keys = [f'{i:03}' for i in range(160)]
    p, split = 1/(1 + np.exp(-skill*(2*target - 1) - draw)), np.where(np.arange(160) < 60, 'valid', 'test')
    frame = pd.DataFrame(dict(run=name, collection='x', patient=keys, study=keys, view='pair', body_part='wrist',
                              target=target, probability=p, split=split))
    frame.to_parquet(run.folder/'predictions.parquet')
    losses = pd.DataFrame(dict(epoch=[0, 1], phase=['warm-up', 'fine-tuning'],
                               train_loss=[.7 - .1*skill, .6 - .2*skill]))
    losses.to_csv(run.folder/'history.csv', index=False)
    return run.finish()


def compared(root, runs):
    "What the performance notebook leaves, of made-up runs"
    run = ResultRun(root/'karam2021'/'performance'/'main', 'karam2021/performance', dict(resamples=50), runs)
    for o in runs: run.result(f'wrist/{o.record["name"]}', runs=[o])
    table = run.table(performance_table(runs, resamples=50), 'fig10', 'The table behind Fig. 10')
    run.figure(performance_figure(table), 'fig10', 'Four models', alt='Point chart')
    losses = pd.concat([o.history.assign(model=o.record['name']) for o in runs], ignore_index=True)
    run.figure(loss_figure(losses), 'fig11', 'Loss', alt='Line chart')
    run.table(differences(runs, resamples=50), 'differences', 'Differences')
    run.table(control_table([]), 'controls', 'Controls')
    return run.finish().folder


def described(root):
    "What the notebook on the collections leaves: a table that is too wide for a telephone, and one of real texts"
    run = ResultRun(root/'karam2021'/'datasets'/'main', 'karam2021/datasets', {}, synthetic=True)
    words = ['a cell that says much more than fits on a telephone']*50
    run.table(pd.DataFrame({f'a column with a long name {i}': words for i in range(9)}), 'table1',
              'A table of nine wide columns and fifty rows')
    run.table(pd.DataFrame(dict(way=['rules'], sentences=9)), 'negation', 'Sentences that people wrote',
              source='NegEx release')
    return run.finish().folder


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    "The page of karam2021, executed on runs that were made up, rendered, and printed where there is a browser"
    import papermill
    root = tmp_path_factory.mktemp('runs')/'profile'
    runs = [stage(root, *o) for o in (('WristNet', .3), ('RadiNetRand_wrist', .6), ('ImageNet_wrist', .9),
                                      ('RadiNet_wrist', 2.))]
    shown = [str(compared(root, runs)), str(described(root))]
    folder = root/'karam2021'/'page'/'main'
    params = dict(paper='karam2021', profile='smoke', what='runs that were made up', out=str(folder), runs=shown)
    papermill.execute_notebook(find_notebook('steps/page'), root/'executed.ipynb', kernel_name='python3',
                               progress_bar=False, language='python',
                               cwd=str(checkout()), parameters=params)
    (root/'executed.ipynb').rename(folder/'notebook.ipynb')
    page = render_page(folder/'notebook.ipynb', folder/'page.html')
    if find_browser(): assert print_page(page) is not None
    return page


@pytest.fixture(scope='module')
def text(report): return report.read_text()


def test_the_page_is_one_file(text):
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', text) and '<script' not in text and '@import' not in text
    assert all(o.startswith('data:image/') for o in re.findall(r'<img[^>]*\bsrc="([^"]+)"', text))
    assert len(text) < 8e6


def test_links_lead_somewhere(report, text):
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    links = [html.unescape(o) for o in re.findall(r'href="([^"]+)"', text)]
    assert len(links) >= 20 # one more where a browser prints the page
    missing = [o for o in links if (o[1:] not in ids if o.startswith('#') else not (report.parent/o).is_file())]
    assert missing == []
    assert {Path(o).suffix for o in links if not o.startswith('#')} >= {'.csv', '.tex', '.svg', '.png', '.ipynb'}


def test_nothing_of_this_machine_is_told(report, text):
    assert str(report.parents[3]) not in text and str(Path.home()) not in re.sub(r'base64,[^"]+', '', text)


def test_figures_have_words(text):
    pictures = re.findall(r'<img[^>]*>', text)
    assert len(pictures) == 2 and all(re.search(r'alt="[^"]{8,}"', o) for o in pictures)
    captions = re.findall(r'<figcaption>(.*?)</figcaption>', text, flags=re.S)
    bare = [o for o in captions if 'Synthetic data.' not in o]
    # real texts are no synthetic data; trainings, versions and the item map are no data at all
    assert len(bare) == 4 and 'Real data: NegEx release.' in bare[0] and bare[2].startswith('Versions')


def exhibits(notebook):
    "What a notebook saves for the page: table or figure, key, letters in the caption and in the alternative text"
    def letters(node): return sum(len(o.value) for o in ast.walk(node) if isinstance(o, ast.Constant)
                                  and isinstance(o.value, str)) if node else 0
    cells = [''.join(c['source']) for c in json.loads(notebook.read_text())['cells'] if c['cell_type'] == 'code']
    calls = [o for c in cells for o in ast.walk(ast.parse(c)) if isinstance(o, ast.Call)
             and isinstance(o.func, ast.Attribute)
             and o.func.attr in ('table', 'figure') and getattr(o.func.value, 'id', '') == 'run' and len(o.args) > 1]
    for call in calls:
        named = {k.arg: k.value for k in call.keywords}
        caption, alt = named.get('caption') or (call.args[2:3] or [None])[0], named.get('alt') or (call.args[3:4]
                                                                                                   or [None])[0]
        # a name stands for a text that was put together above it
        yield call.func.attr, ast.unparse(call.args[1]), *(99 if isinstance(o, ast.Name) else letters(o)
                                                           for o in (caption, alt))


def test_every_table_and_figure_of_the_papers_has_words_of_its_own():
    notebooks = [p for folder in paper_folders().values() for p in sorted(folder.glob('*.ipynb'))
                 if '"parameters"' in p.read_text()]
    found = {(o.parent.name, o.stem, *e) for o in notebooks for e in exhibits(o)}
    assert len(found) > 60
    assert [o for o in found if o[4] < 40] == [], 'no caption of its own'
    assert [o for o in found if o[2] == 'figure' and o[5] < 20] == [], 'no alternative text'


def test_sections_are_folded_and_links_lead_into_them(text):
    sections = re.findall(r'<details class="part">.*?</details>(?=<details class="part">|\n?</main>)', text, flags=re.S)
    assert len(sections) == text.count('<h2>') > 10 and '<details open' not in text
    # the id stands in the part that folds: there a browser opens what a link leads into
    assert all(re.match(r'<details class="part"><summary><h2>.*?</summary><div id="', o, flags=re.S) for o in sections)
    first = text[text.index('<main>'):text.index('<details class="part">')]
    assert 'class="bar"' in first and 'tried on <strong>synthetic</strong>' in first and '<figure' not in first


def test_every_number_says_where_it_comes_from(text):
    rows = re.findall(r'<tr([^>]*)><td', text)
    assert len(rows) > 40 and all(' title="From ' in o for o in rows)
    assert any('karam2021/stage/RadiNet_wrist.seed0 (' in o for o in rows)
    captions = re.findall(r'<figcaption>(.*?)</figcaption>', text, flags=re.S)
    assert all('<details class="source">' in o for o in captions)


def test_what_was_not_run_is_said(text):
    assert text.count('class="absent"') == 9 # sections of which no run was given
    assert text.count('<small>not run</small></summary>') == 9


def test_every_claim_of_the_paper_has_its_verdict(report, text):
    judged = pd.read_csv(report.parent/'claims.csv')
    assert len(judged) == len(read_claims('karam2021')) and set(judged.verdict) <= set(VERDICTS)
    row = judged.set_index('id').loc['karam-fig10-WristNet-accuracy']
    assert row.verdict in ('direction only', 'undecided') and '1 training a model' in row.says
    assert row.low <= row.effect <= row.high and 'RadiNet_wrist.seed0 (' in row.runs
    # one page, one number: the ledger and the table behind Fig. 10 take the same thresholds
    gaps = pd.read_csv(report.parents[2]/'performance'/'main'/'differences.csv').set_index(['baseline',
                                                                                            'metric']).difference
    effects = judged.set_index('id').effect
    for o in ('accuracy', 'f1', 'kappa', 'auc'):
        assert np.isclose(effects[f'karam-fig10-WristNet-{o}'], gaps['WristNet', o])
    assert not set(judged.verdict[judged.runs.str.contains('seed0')]) & {'reproduced', 'not reproduced'}
    shown = set(re.findall(r'<li class="c\d" id="([^"]+)"', text))
    assert shown == set(judged.id)


def test_tables_say_published_ours_difference_interval(text):
    heads = [re.findall(r'<th(?: [^>]*)?>(.*?)</th>', o) for o in re.findall(r'<thead>.*?</thead>', text, flags=re.S)]
    assert ['model', 'metric', 'published', 'ours', 'difference', '95 % interval'] in [o[:6] for o in heads]


PROBE = '''<!DOCTYPE html><meta charset="utf-8">
<iframe id="page" src="page.html" style="width:%dpx;height:844px;border:0"></iframe>
<pre id="found"></pre><script>
onload = () => {
  const doc = document.getElementById('page').contentDocument, root = doc.documentElement
  const folded = root.scrollHeight
  for (const o of doc.querySelectorAll('details.part')) o.open = true
  const wide = [...doc.querySelectorAll('body *')].filter(
    o => o.getBoundingClientRect().right > %d && !o.closest('.scroll') && !o.closest('pre'))
  const rows = o => [...o.querySelectorAll('tbody tr')].filter(r => r.offsetHeight).length
  document.getElementById('found').textContent = JSON.stringify({
    width: root.clientWidth, scroll: root.scrollWidth, height: root.scrollHeight, folded,
    verdicts: doc.querySelector('.key').getBoundingClientRect().bottom,
    shown: [...doc.querySelectorAll('.fold ~ .scroll')].map(rows), images: doc.images.length,
    wide: wide.slice(0, 5).map(o => o.outerHTML.slice(0, 120)),
    broken: [...doc.images].filter(o => !o.complete || !o.naturalWidth).length,
    wordless: [...doc.images].filter(o => !o.alt).length})
}
</script>'''


@needs_browser
@pytest.mark.parametrize('width', WIDTHS)
def test_in_a_browser(report, width):
    probe = report.with_name(f'probe{width}.html')
    probe.write_text(PROBE % (width, width))
    res = browse('--allow-file-access-from-files', '--enable-logging=stderr', '--virtual-time-budget=8000',
                 '--dump-dom', probe.as_uri())
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', res.stdout, flags=re.S)[1]))
    assert found['width'] == width and found['height'] > 2000
    assert found['folded'] < 2200 # whatever the sections hold
    assert found['verdicts'] < (844 if width > 1000 else 1300) # the verdicts come first
    assert found['shown'] and set(found['shown']) == {FOLDED}
    assert found['scroll'] <= width, found['wide']
    assert found['wide'] == [] and (found['images'], found['broken'], found['wordless']) == (2, 0, 0)
    assert [o for o in res.stderr.splitlines() if 'CONSOLE' in o] == []


NARROW = """<!DOCTYPE html><meta charset="utf-8">
<iframe id="page" src="page.html" style="width:390px;height:844px;border:0"></iframe>
<pre id="found"></pre><script>
onload = () => { const doc = document.getElementById('page').contentDocument
  for (const o of doc.querySelectorAll('details.part')) o.open = true
  const said = o => getComputedStyle(o.querySelector('figcaption'), '::before').content
  document.getElementById('found').textContent = JSON.stringify([...doc.querySelectorAll('figure')].map(
    o => [o.querySelector('img').getBoundingClientRect().right <= 390, said(o).includes('sideways')])) }
</script>"""


@needs_browser
def test_on_a_telephone_a_narrow_figure_is_whole_and_a_wide_one_moves(tmp_path):
    bins = pd.DataFrame(dict(predicted=[.04, .93], observed=[.05, .9], low=[.02, .8], high=[.1, .95], n=[400, 30]))
    wide = pd.DataFrame(dict(model='A', epoch=[0, 1], phase='x', train_loss=[.7, .6]))
    run, cells = ResultRun(tmp_path/'fracatlas'/'scores'/'main', 'fracatlas/scores', {}, []), []
    run.figure(reliability_figure({'out of fold': bins, 'test': bins}), 'reliability', 'Narrow', alt='chart')
    run.figure(loss_figure(wide), 'losses', 'Wide', alt='chart')
    done = run.finish()
    for name in ('reliability', 'losses'):
        shown = nbformat.v4.new_output('display_data', {'text/html': Figure(done, name, name)._repr_html_()})
        cells.append(nbformat.v4.new_code_cell('', outputs=[shown]))
    title = nbformat.v4.new_markdown_cell('# Title')
    nbformat.write(nbformat.v4.new_notebook(cells=[title, *cells]), tmp_path/'page.ipynb')
    render_page(tmp_path/'page.ipynb', tmp_path/'page.html')
    (tmp_path/'probe.html').write_text(NARROW)
    res = browse('--allow-file-access-from-files', '--virtual-time-budget=8000', '--dump-dom',
                 (tmp_path/'probe.html').as_uri())
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', res.stdout, flags=re.S)[1]))
    assert found == [[True, False], [False, True]]


def paper_pages(pdf):
    "How many sheets a PDF has"
    return len(re.findall(rb'/Type\s*/Page\b', pdf.read_bytes()))


OPENED = """<!DOCTYPE html><meta charset="utf-8">
<iframe id="page" src="page.html#%s" style="width:800px;height:600px"></iframe>
<pre id="found"></pre><script>
onload = () => { const doc = document.getElementById('page').contentDocument
  const open = [...doc.querySelectorAll('details.part')].filter(o => o.open).map(o => o.querySelector('.inside').id)
  doc.getElementById('unfold').checked = true
  doc.body.offsetHeight // lay out
  const inside = [...doc.querySelectorAll('.part > .inside')]
  const shown = inside.filter(o => o.checkVisibility({contentVisibilityAuto: true}))
  document.getElementById('found').textContent = JSON.stringify({open, shown: shown.length}) }
</script>"""


@needs_browser
def test_a_link_opens_its_section_and_one_box_opens_all(report, text):
    ids = re.findall(r'<div id="([^"]+)" class="inside">', text)
    probe = report.with_name('opened.html')
    probe.write_text(OPENED % ids[3])
    res = browse('--allow-file-access-from-files', '--virtual-time-budget=8000', '--dump-dom', probe.as_uri())
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', res.stdout, flags=re.S)[1]))
    assert found == dict(open=[ids[3]], shown=len(ids))


@needs_browser
def test_on_paper(report, text):
    assert (report.with_suffix('.pdf')).read_bytes()[:5] == b'%PDF-'
    assert 'href="page.pdf"' in text
    assert paper_pages(report.with_suffix('.pdf')) > 5 # what is folded on a screen is printed
    # links would lead to this machine from paper
    assert b'file://' not in report.with_suffix('.pdf').read_bytes()
