"Read the package's metadata from settings.ini, its only home; pyproject.toml declares these fields dynamic."
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
config = ConfigParser(delimiters=['='])
config.read(here/'settings.ini', encoding='utf-8')
meta = config['DEFAULT']


def lines(name): return [o.strip() for o in meta[name].splitlines() if o.strip()]


extras = {name.removesuffix('_requirements'): lines(name) for name in meta if name.endswith('_requirements')}
extras['dev'] += extras['reproduce']+extras['onnx']


class BuildWithPapers(build_py):
    "What the library reads of a paper (paper.yaml, published.csv, claims.csv) travels with the package"
    def run(self):
        super().run()
        for path in (here/'nbs'/'papers').glob('*/*'):
            if path.suffix not in ('.yaml', '.csv'): continue
            to = Path(self.build_lib)/'radinet_nb'/'papers'/path.parent.name
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)


setup(
    cmdclass={'build_py': BuildWithPapers},
    version=meta['version'], description=meta['description'], keywords=meta['keywords'].split(),
    author=meta['author'], license=meta['license'],
    python_requires=f">={meta['min_python']},<{meta['max_python']}",
    classifiers=[f"Development Status :: {meta['status']}", 'Intended Audience :: Science/Research',
                 'Programming Language :: Python :: 3', 'Topic :: Scientific/Engineering :: Medical Science Apps.'],
    install_requires=lines('requirements'),
    extras_require=extras,
    packages=find_packages(include=['radinet_nb', 'radinet_nb.*']),
    package_data={'radinet_nb': ['py.typed', '**/*.csv', '**/*.j2', '**/*.css']},
    entry_points={'console_scripts': lines('console_scripts'), 'nbdev': ['radinet_nb = radinet_nb._modidx:d'],
                  'jupyter_client.kernel_provisioners': ['radinet-warm = '
                                                         'radinet_nb.workflow.provisioner:WarmProvisioner']},
)
