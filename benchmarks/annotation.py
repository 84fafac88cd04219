"""Labels from reports, measured: speed and memory at 200,000 reports, negation rules beside negspacy, near-duplicates
beside brute force.

    python benchmarks/annotation.py [speed|negation|duplicates|dictations]...

Results go to benchmarks/annotation.json. Real text is looked for in $RADINET_DATA, otherwise in ../shared/data beside
the checkout.
"""
import json
import os
import platform
import random
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

here = Path(__file__).resolve().parent
data = Path(os.environ.get('RADINET_DATA') or here.parent.parent/'shared'/'data')
bones = ['distal radius', 'ulnar styloid', 'scaphoid', 'fifth metacarpal', 'lunate', 'capitate', 'distal ulna',
         'triquetrum', 'radial styloid']
kinds = ['transverse', 'comminuted', 'oblique', 'buckle', 'nondisplaced', 'intra-articular', 'impacted', 'spiral',
         'hairline']
yes = ['There is a {k} fracture of the {b}.', '{k} fracture through the {b} is seen.',
       'A {k} {b} fracture is again noted.',
       'Fracture line in the {b}, {k}.']
no = ['No acute fracture of the {b}.', 'There is no evidence of {k} fracture or dislocation.',
      'No {k} fracture is identified.', 'The {b} is intact.']
rest = ['Soft tissue swelling over the {b}.', 'Joint spaces are preserved.', 'The carpal alignment is anatomic.',
        'Mild osteopenia of the {b}.',
        'Degenerative changes at the {b}.', 'Ulnar variance is neutral at {n} mm.', 'No radiopaque foreign body.',
        'Cast material obscures the {b}.',
        'Compared to {n}/{m}/2016, alignment is unchanged.', 'A small ossicle is seen near the {b}.',
        'Bone mineral density is normal for age.',
        'The {b} shows normal contour.', 'Clinical correlation is advised.', 'Follow-up in {n} days is suggested.']


def many_reports(n, seed=0):
    "n made-up wrist reports of about 600 characters, 1 for a fracture, patients"
    rng, draw, texts = np.random.default_rng(seed), random.Random(seed), []
    y = rng.integers(0, 2, n)
    slot = lambda s: s.format(k=draw.choice(kinds), b=draw.choice(bones), n=draw.randrange(1, 28),
                              m=draw.randrange(1, 12))
    for o in y:
        body = [slot(s) for s in draw.sample(rest, draw.randrange(7, 13))]
        body.insert(draw.randrange(len(body)), slot(draw.choice(yes if o else no)))
        texts.append(f'EXAM: Wrist, {draw.randrange(2, 5)} views. INDICATION: Fall, rule out fracture.\nFINDINGS: '
                     f'{" ".join(body)}\n'
                     f'IMPRESSION: {slot(draw.choice(yes if o else no))} Electronically signed by Dr. A. Reader')
    return texts, y, rng.integers(0, n//2, n)


def watch_memory(stop, seen):
    "Memory of this process and its workers together, MiB, each shared page counted once"
    me = psutil.Process()
    while not stop.wait(0.5):
        total = 0
        for o in [me, *me.children(recursive=True)]:
            try: total += o.memory_full_info().pss
            except psutil.Error: continue # a worker that has just ended
        seen.append(total/2**20)


def speed(n=int(os.environ.get('REPORTS', 200_000)), labelled=7414):
    "Cleaned, tied, vectorised and labelled, the paper's number of labelled reports among them"
    from radinet_nb.annotation.annotate import annotate_reports
    texts, y, patients = many_reports(n + labelled)
    with tempfile.TemporaryDirectory() as d:
        frame = pd.DataFrame({'key':np.arange(len(y)), 'patient':patients, 'report':texts,
                              'fracture':pd.array(y, dtype='Int8')})
        frame.loc[labelled:, 'fracture'] = pd.NA
        frame.to_csv(Path(d, 'reports.csv'), index=False)
        characters = sum(map(len, texts))/len(texts)
        del frame, texts
        began, start, watch = time.perf_counter(), time.process_time(), threading.Event()
        threading.Thread(target=watch_memory, args=(watch, memory := []), daemon=True).start()
        run = annotate_reports(Path(d, 'reports.csv'), out=Path(d, 'out'), error=0.02, jobs=2)
        seconds = time.perf_counter() - began
        given = run.table('labels.csv')
    new = given[given.label_source == 'report']
    wrong = (new.label != y[new.key])[new.label.notna()]
    from joblib.externals.loky import get_reusable_executor
    watch.set()
    get_reusable_executor().shutdown(wait=True) # only workers that have ended are counted
    used = [resource.getrusage(o) for o in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    main, workers = used[0].ru_utime+used[0].ru_stime-start, used[1].ru_utime+used[1].ru_stime
    return dict(reports=n, labelled=labelled, mean_characters=round(characters), wall_seconds=round(seconds, 1),
                cpu_seconds_main=round(main, 1), cpu_seconds_workers=round(workers, 1), load=os.getloadavg()[0],
                least_wall_seconds_on_two_idle_cores=round(main+workers/2, 1),
                handed_on=float(new.label.notna().mean()), error=float(wrong.mean()),
                peak_mib_all_processes=round(max(memory)))


def scores(said, truth):
    "Accuracy, precision and recall of 'negated'"
    said, truth = np.asarray(said, bool), np.asarray(truth, bool)
    hit = (said & truth).sum()
    return dict(accuracy=float((said == truth).mean()), precision=float(hit/said.sum()), recall=float(hit/truth.sum()),
                sentences=len(truth))


def negspacy_says(sentences):
    "negspacy with its clinical term set on given spans; None where the condition is not in the sentence"
    import spacy
    from negspacy.negation import Negex  # noqa: F401 registers the component
    from spacy.util import filter_spans
    nlp = spacy.blank('en')
    nlp.add_pipe('sentencizer')
    negex = nlp.add_pipe('negex', config={'chunk_prefix':[]})
    out = []
    for o in sentences.itertuples():
        doc = nlp.make_doc(o.sentence.lower()) if o.start >= 0 else None
        span = doc.char_span(o.start, o.stop, label='X', alignment_mode='expand') if doc is not None else None
        if span is None:
            out.append(False)
            continue
        doc.ents = filter_spans([span])
        for t in doc[1:]: t.is_sent_start = False # the release is already one sentence a row
        doc = negex(doc)
        out.append(bool(doc.ents[0]._.negex))
    return out


def negation():
    "Rules, negspacy's rules and the paper's classifier on the same sentences"
    from radinet_nb.annotation.comparison import report_models
    from radinet_nb.annotation.groups import near_duplicates, tie_groups
    from radinet_nb.annotation.negation import blank_mention, read_negation
    from radinet_nb.annotation.ngrams import ngram_counter
    from radinet_nb.annotation.reports import clean_report
    from radinet_nb.annotation.rules import mention_status
    from sklearn.model_selection import StratifiedGroupKFold
    folder = data/'negation'
    numbered = os.environ.get('NEGEX_NUMBERED') # Annotations-1-120.txt of github.com/chapmanbe/negex, not needed
    table = read_negation(folder/'rsAnnotations-1-120-random.txt', numbered)
    began = time.perf_counter()
    rules = [o.start >= 0 and mention_status(o.sentence, o.start, o.stop) == 'negated' for o in table.itertuples()]
    out = {'rules':scores(rules, table.negated) | dict(seconds=round(time.perf_counter()-began, 2))}
    began = time.perf_counter()
    out['negspacy'] = scores(negspacy_says(table), table.negated) | dict(seconds=round(time.perf_counter()-began, 2))
    text = np.array([clean_report(blank_mention(o.sentence, o.start, o.stop)) for o in table.itertuples()],
                    dtype=object)
    plain = table.sentence.str.lower().str.split().str.join(' ')
    ties = {'sentence and near-copy':tie_groups(plain, near_duplicates(text))}
    if numbered: ties['report'] = tie_groups(table.report, plain)
    for name,groups in ties.items():
        said = {o: np.zeros(len(table), int) for o in report_models()}
        for train,test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(text, table.negated, groups):
            counter = ngram_counter()
            X, held = counter.fit_transform(text[train]), counter.transform(text[test])
            for o,model in report_models().items(): said[o][test] = model.fit(X, table.negated[train]).predict(held)
        for o,answer in said.items(): out[f'{o}, five folds by {name}'] = scores(answer, table.negated)
    out['majority'] = dict(accuracy=float(1-table.negated.mean()), sentences=len(table))
    return out


def brute_force(texts, similarity):
    "All pairs of distinct texts that overlap enough"
    sets = [{tuple(w[i:i+3]) for i in range(max(len(w)-2, 1))} for w in (['^', *o.split(), '$'] for o in texts)]
    return [(i, j) for i in range(len(sets)) for j in range(i) if len(sets[i] & sets[j]) >= similarity*len(sets[i]
                                                                                                           | sets[j])]


def duplicates():
    "Share of true near-duplicate pairs that land in one group, and of pairs in one group that are none"
    from radinet_nb.annotation.groups import near_duplicates
    from radinet_nb.annotation.reports import clean_reports
    texts, _, _ = many_reports(400)
    rng = np.random.default_rng(1)
    near = [' '.join(w for w in o.split() if rng.random() > 0.02) for o in texts for _ in range(3)]
    cleaned = pd.unique(clean_reports(texts+near).text)
    group = near_duplicates(cleaned)
    pairs = brute_force(cleaned, 0.8)
    found = float(np.mean([group[i] == group[j] for i,j in pairs]))
    return dict(reports=len(cleaned), true_pairs=len(pairs), found=found, groups=len(np.unique(group)))


def dictations():
    "Real dictations, repeated with small changes: cleaning, vectorising and near-duplicates"
    from radinet_nb.annotation.groups import near_duplicates
    from radinet_nb.annotation.ngrams import ngram_counter
    from radinet_nb.annotation.reports import clean_reports, plain_reports
    from radinet_nb.annotation.rules import rule_labels
    raw = pd.read_csv(data/'reports'/'mtsamples_radiology_orthopedic.csv').transcription
    out, began = dict(rows=len(raw), distinct=int(raw.nunique()),
                      mean_characters=int(raw.str.len().mean())), time.process_time()
    cleaned = clean_reports(raw)
    out['clean_ms'] = round(1000*(time.process_time()-began)/len(raw), 3)
    began = time.process_time()
    group = near_duplicates(cleaned.text)
    out |= dict(duplicates_ms=round(1000*(time.process_time()-began)/len(raw), 3), groups=len(np.unique(group)))
    began = time.process_time()
    X = ngram_counter().fit_transform(cleaned.text)
    out |= dict(count_ms=round(1000*(time.process_time()-began)/len(raw), 3), ngrams=X.shape[1])
    out['rules'] = rule_labels(plain_reports(raw)).rule_finding.value_counts().to_dict()
    out['remarks'] = cleaned.remarks.value_counts().to_dict()
    return out


if __name__ == '__main__':
    out = here/'annotation.json'
    results = json.loads(out.read_text()) if out.exists() else {}
    results['machine'] = dict(cores=os.cpu_count(), python=platform.python_version(), system=platform.system())
    for name in sys.argv[1:] or ['negation', 'duplicates', 'dictations', 'speed']:
        results[name] = globals()[name]()
        print(name, json.dumps(results[name], indent=1))
    out.write_text(json.dumps(results, indent=1) + '\n')
