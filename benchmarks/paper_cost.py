"""What profile `paper` costs on 1, 4 and 16 GPUs: its own plan, the published numbers of images, and measured steps

    python benchmarks/paper_cost.py [--gpus 1,4,16] [--price 3]

Nothing is trained. The plan is that of the profile; images of MURA and of the hospital are those that karam2021
prints; the step is that of benchmarks/gpu.json, DenseNet-169 in bf16. `workflow.cost` says how one leads to the other.
Results go to benchmarks/paper_cost.json and, as a table, between two marks into docs/tasks/11_at_scale.md.
"""
import argparse
import json
import re
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent/'docs'/'tasks'/'11_at_scale.md'
MARKS = ('<!-- cost -->', '<!-- end of cost -->')


def published_images():
    "Images by collection and part: those that are trained on and chosen on; of the hospital, cases"
    from radinet_nb.evidence.published import read_published
    rows = read_published('karam2021')
    table = rows[(rows['item'] == 'table1') & (rows['metric'] == 'train_images')]
    mura = {o.dataset: int(o.value) for o in table.itertuples() if o.dataset not in ('total', 'wrist (hospital)')}
    cases = rows[rows['metric'].isin(['labelled_records', 'unlabelled_records'])].value.sum()
    views = rows[(rows['metric'] == 'images') & (rows['dataset'] == 'wrist (hospital)')].value.iloc[0]
    return mura, dict(cases=int(cases), views=int(views))


def counted(params, shares, mura, hospital):
    "Images of a stage's training split and of its validation split"
    collections, parts = params.get('collections') or ['mura', 'hospital'], params.get('parts') or []
    found = sum(n for part, n in mura.items() if not parts or part in parts) if 'mura' in collections else 0
    # MURA's published training part is divided, a hospital's cases by all three shares
    train, valid = (found*o/(shares[0] + shares[1]) for o in shares[:2])
    if 'hospital' in collections and params['collection_of_hospital'] and (not parts or 'wrist' in parts):
        own = hospital['cases' if params.get('unit', 'pair') == 'pair' else 'views']
        train, valid = train + own*shares[0], valid + own*shares[1]
    return round(train*params.get('train_share', 1)), round(valid)


def costs():
    "GPU hours of every training whose images are known, and how many there are besides"
    from radinet_nb.workflow.cost import MeasuredStep, training_hours
    from radinet_nb.workflow.plan import make_plan
    from radinet_nb.workflow.profiles import load_profile
    with tempfile.TemporaryDirectory() as empty:
        plan = make_plan(load_profile('paper', dict.fromkeys(('mura', 'hospital', 'chests'), empty)))
    gpu = json.loads((HERE/'gpu.json').read_text())
    rates = [gpu[part]['images_a_second']['ours'] for part in ('step', 'features')]
    step = MeasuredStep(*rates, gpu['batch'], gpu['pixels'])
    (mura, hospital), hours, left = published_images(), {}, Counter()
    for id, node in plan.items():
        if id.split('/')[1] not in ('stage', 'localize'): continue
        ingest = plan[node.parents['ingested']].params
        if not set(ingest['data']) & {'mura', 'hospital'} or '/localize/' in id:
            left[id.rpartition('/')[0]] += 1
            continue
        params = node.params | dict(collection_of_hospital='hospital' in ingest['data'])
        counts = counted(params, ingest['shares'], mura, hospital)
        hours[id] = training_hours(params, counts, ingest['pixels'], step)
    return plan, hours, dict(left), gpu


def markdown(res):
    "The table of the page"
    def span(low, high, digits=0): return f'{low:,.{digits}f} to {high:,.{digits}f}'
    lines = ['| GPUs | days | share of the GPUs at work | cost |', '| ---: | ---: | ---: | ---: |']
    for o in res['on']:
        days, busy, cost = ((o[f'{what}_low'], o[f'{what}_high']) for what in ('hours', 'busy', 'cost'))
        lines.append(f'| {o["gpus"]} | {span(*(v/24 for v in days), 1)} | '
                     f'{min(busy):.0%} to {max(busy):.0%} | {span(*cost)} |')
    return '\n'.join(lines)


def main():
    from radinet_nb.workflow.cost import cost_table, longest_chain
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--gpus', default='1,4,16')
    parser.add_argument('--price', type=float, default=3., help='of a GPU hour')
    o = parser.parse_args()
    plan, hours, left, gpu = costs()
    table = cost_table(plan, hours, [int(n) for n in o.gpus.split(',')], o.price)
    papers = Counter()
    for id, (_, high) in hours.items(): papers[id.partition('/')[0]] += high
    chains = [max(longest_chain(plan, {id: h[k] for id, h in hours.items()}).values()) for k in (0, 1)]
    res = dict(what='profile paper by its plan; hours if time goes with the pixels, and if every step takes the same',
               device=gpu['device'], network=gpu['network'], trainings=len(hours),
               gpu_hours=[round(sum(h[k] for h in hours.values()), 1) for k in (0, 1)],
               longest_chain_hours=[round(h, 1) for h in chains], price_of_a_gpu_hour=o.price, not_counted=left,
               gpu_hours_high_by_paper={name: round(h, 1) for name, h in papers.items()},
               on=[{k: round(v, 2) for k, v in row.items()} for row in table.to_dict('records')])
    (HERE/'paper_cost.json').write_text(json.dumps(res, indent=1) + '\n')
    text = PAGE.read_text(encoding='utf-8')
    new = re.sub(f'(?<={MARKS[0]}\n).*?(?={MARKS[1]})', lambda _: markdown(res) + '\n', text, flags=re.S)
    PAGE.write_text(new, encoding='utf-8')
    print(json.dumps(res, indent=1))


if __name__ == '__main__': main()
