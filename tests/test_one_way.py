"""Files are read in one way, which ends in a value or in one line: what reads otherwise stands here with its reason

A file that lies in a folder of images, runs, models or kept results may have been cut, copied, edited or exchanged. The
rooms of `WAYS` read it; nobody else opens a file, or parses what one holds."""
import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]/'radinet_nb'
WAYS = {'data/text_files.py', 'data/table_files.py', 'data/array_files.py'}
READERS = {'json.load', 'json.loads', 'np.load', 'np.loadtxt', 'np.genfromtxt', 'np.fromfile', 'np.memmap',
           'pd.read_csv', 'pd.read_parquet', 'pd.read_json', 'pd.read_excel', 'pd.read_table', 'pd.read_pickle',
           'yaml.safe_load', 'yaml.load', 'nbformat.read', 'nbformat.reads', 'torch.load', 'safe_open', 'load_file',
           'pickle.load', 'pickle.loads', 'csv.reader', 'csv.DictReader', 'open', 'gzip.open', 'zipfile.ZipFile',
           'Image.open', 'tomllib.load', 'tomllib.loads', 'fits.open', 'dcmread', 'pydicom.dcmread'}
METHODS = {'read_text', 'read_bytes', 'open'}
ALLOWED = {o: why for why, places in {
    'cells of a table that `schema` has validated': [
        'analysis/explain_truth.py:lesion_boxes:json.loads', 'analysis/feature_maps.py:boxes_of:json.loads',
        'data/frames.py:cell_boxes:json.loads'],
    'JSON that this process has just written': [
        'analysis/advice.py:leave_advice:json.loads', 'learning/strategies.py:same_training:json.loads',
        'workflow/made_from.py:made_from:json.loads'],
    'a file that this process, or one that it started, has just written': [
        'analysis/corruptions.py:jpeg:Image.open', 'data/cache.py:copy_parts:np.load',
        'data/convert.py:join_views:Image.open', 'data/croissant.py:write_croissant:.read_bytes',
        'data/disk.py:whole_file:open', 'data/fetch.py:load_rest:open', 'data/images.py:fill_row:np.load',
        'data_commands.py:export_command:.read_text', 'learning/features.py:open_features:np.memmap',
        'learning/processes.py:launch:.read_text', 'learning/processes.py:launch:json.loads',
        'models/dicom_results.py:write_dicom_results:Image.open', 'results/page.py:print_page:.read_text',
        'workflow/cluster.py:note_ended:.read_text', 'workflow/reproduce.py:_last_error:.read_text',
        'workflow/warm.py:receive_request:json.loads'],
    'progress is a courtesy: what cannot be read is passed over': [
        'data/workers.py:_waited:.read_text', 'terminal.py:_show_lines:.read_text',
        'workflow/reproduce.py:_progress:.read_text'],
    'the one reader of DICOM, whose errors become `InputError`': [
        'data/convert.py:why_skipped:open', 'data/dicom.py:_parse:.read_bytes', 'data/dicom.py:_parse:dcmread',
        'data/dicom.py:_parse:open', 'data/dicom.py:is_dicom:open'],
    'the one reader of pictures, whose errors become `InputError`': [
        'data/boxes.py:upright_size:Image.open', 'data/images.py:read_picture:Image.open'],
    'a file that was read before by the one reader of DICOM': [
        'analysis/feature_maps.py:image_size:pydicom.dcmread', 'models/dicom_results.py:source_header:dcmread'],
    'tensors: it is a file, and whatever goes wrong becomes `InputError`': [
        'annotation/annotator.py:load_annotator:load_file', 'learning/checkpoints.py:read_checkpoint:safe_open',
        'learning/features.py:read_features:safe_open', 'learning/fused.py:load_fused:load_file',
        'learning/weights.py:load_weights:load_file', 'learning/weights.py:load_weights:torch.load',
        'learning/weights.py:weights_header:safe_open'],
    'a file of a package whose hash was compared': [
        'learning/packaged.py:packaged_file:.read_bytes', 'learning/packaged.py:packaged_weights:torch.load'],
    'bytes for a hash, or a picture passed on as it is': [
        'data/hashes.py:file_hash:open', 'models/folder.py:sha256:open',
        'results/page_items.py:embedded_picture:.read_bytes', 'results/page_items.py:picture_inches:open'],
    'a download: damage becomes `InputError`': [
        'data/fetch.py:fetch:load_file', 'data/fetch.py:unpack_archive:.open',
        'data/fetch.py:unpack_archive:zipfile.ZipFile'],
    'it is a file, and what is none becomes `InputError`': [
        'data/code_lists.py:read_codes:.read_text', 'data/code_lists.py:read_codes:csv.reader',
        'data/identity.py:read_key:.read_text', 'data/journal.py:read_journal:.read_bytes',
        'data/notebooks.py:executed_notebook:nbformat.reads'],
    'source code and style of this library, or of a package': [
        'learning/backbones.py:model_sources:.read_text', 'learning/checkpoints.py:identity:.read_bytes',
        'results/page.py:stylesheet:.read_text', 'workflow/staleness.py:code_of:.read_text',
        'workflow/staleness.py:modules_behind:.read_text'],
    'a release in a form of its own: Latin-1, tabs, marks that are no quotes': [
        'annotation/negation.py:read_negation:pd.read_csv'],
}.items() for o in places}


def name_of(call):
    "`np.load` of a call, `.read_text` of a method of anything"
    at = call.func
    if isinstance(at, ast.Name): return at.id
    if not isinstance(at, ast.Attribute) or isinstance(at.value, ast.Name) and at.value.id == 'os': return ''
    name = f'{at.value.id}.{at.attr}' if isinstance(at.value, ast.Name) else ''
    return name if name in READERS else f'.{at.attr}' if at.attr in METHODS else ''


def writes(call):
    "Whether a file is opened to be written"
    at = 1 if name_of(call) == 'open' else 0
    modes = [o.value for o in call.args[at:at+1] if isinstance(o, ast.Constant)]
    return any(isinstance(o, str) and set(o) & set('wax') for o in modes)


def reads(path):
    "What a module reads: its path, the function, and the name of the call"
    found = set()
    for part in ast.parse(path.read_text()).body:
        for node in ast.walk(part):
            if not isinstance(node, ast.Call): continue
            name = name_of(node)
            if name in READERS or name[:1] == '.':
                if name in ('open', '.open') and writes(node): continue
                found.add(f"{path.relative_to(ROOT).as_posix()}:{getattr(part, 'name', '')}:{name}")
    return found


def found_reads():
    return set().union(*(reads(o) for o in ROOT.rglob('*.py') if o.relative_to(ROOT).as_posix() not in WAYS))


def test_whoever_reads_a_file_otherwise_has_a_reason():
    found = found_reads()
    assert sorted(found - ALLOWED.keys()) == [], 'read it with data.text_files, data.table_files or data.array_files'
    assert sorted(ALLOWED.keys() - found) == [], 'these read no longer: take them off the list'
    assert all(len(o) > 10 for o in ALLOWED.values())
