"Sphinx's configuration: the site is built from the notebooks, as `collect.py` lays them out, and runs none of them"
from importlib.metadata import version as installed

project, author, release = 'radinet_nb', 'The radinet_nb authors', installed('radinet_nb')
project_copyright = 'the radinet_nb authors, Apache-2.0'
extensions = ['myst_nb', 'sphinx_copybutton']
exclude_patterns = ['_build']
nb_execution_mode = 'off' # the notebooks carry their outputs; the tests execute them
myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 3
html_theme, html_title = 'furo', 'radinet_nb'
html_static_path, html_css_files = ['_static'], ['site.css']
html_show_sphinx = False
# shown where a notebook prints more than one picture of the same thing
nb_mime_priority_overrides = [('html', 'image/png', 20)]
copybutton_exclude = '.linenos, .gp, .go'
