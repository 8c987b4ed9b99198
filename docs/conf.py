"""The documentation site (``make docs``): Sphinx reads the Markdown where it lies, so GitHub and the site show one source.

The source folder is the repository; only what ``include_patterns`` names is a page. The API reference comes from the docstrings
without importing the package, so neither torch nor MONAI Label is needed.
"""

import itertools
import re
import textwrap
import tomllib
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

REPOSITORY = Path(__file__).parents[1]

project = "flr-planning"
author = "the flr-planning authors"
release = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "autoapi.extension"]
root_doc = "README"
include_patterns = [
    "README.md", "docs/**", "benchmark/README.md", "benchmark/splits/README.md", "apps/flr_planning/model/README.md", "apps/flr_planning/model/demo/README.md",
    "CHANGELOG.md", "CONTRIBUTING.md",
]  # fmt: skip
exclude_patterns = [
    "**/.*",
    "**/work",
    "build",
    "tests",
    "apps/flr_planning/lib",
    "apps/flr_planning/logs",
]  # not even looked into
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

myst_heading_anchors = 4  # links to headings, called as on GitHub
myst_enable_extensions = ["colon_fence"]

autoapi_dirs = ["apps/flr_planning/lib/flrplan"]
autoapi_root = "docs/api"
autoapi_ignore = [
    "*/flrplan/commands/*",
    "*/flrplan/server/*",
    "*/flrplan/demo/*",
]  # the command line, the server, the demo: no library
autoapi_add_toctree_entry = False
autoapi_options = ["members", "undoc-members", "show-inheritance"]
autoapi_python_class_content = "class"
autoapi_member_order = "bysource"
add_module_names = False
highlight_language = "none"  # of blocks that name none: commands and output
python_use_unqualified_type_names = True

# What a page or a docstring names in full must be there, but for what the reference leaves out.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!flrplan\.).*"), ("py:.*", r"flrplan\.(commands|server|demo)\b.*")]
suppress_warnings = [
    "ref.python",  # an annotation's name that several modules define is shown without a link
    "autoapi.python_import_resolution",  # A, B = ...: read as no definition of A
]

html_theme = "furo"
html_title = f"flr-planning {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["site"]  # index.html leads to the front page
html_copy_source = False
html_show_copyright = False

CONTENTS = """
```{toctree}
:hidden:
:caption: By role
Surgeon <docs/surgeon>
Annotator <docs/annotator>
Administrator <docs/administrator>
Researcher <docs/researcher>
Developer <docs/developer>
```

```{toctree}
:hidden:
:caption: Planning and serving
docs/inputs
docs/planning
docs/clicks
docs/objects
docs/uncertainty
docs/day
apps/flr_planning/model/README
apps/flr_planning/model/demo/README
docs/status
```

```{toctree}
:hidden:
:caption: Research
docs/training
docs/networks
benchmark/README
docs/evaluation
docs/qc
docs/active
benchmark/splits/README
docs/slurm
docs/synthetic197
docs/speed
docs/gpu
```

```{toctree}
:hidden:
:caption: Development
docs/architecture
docs/api
CONTRIBUTING
docs/glossary
CHANGELOG
```
"""
"""The table of contents, at the end of the front page; every page stands in it."""

FIELD = re.compile(r"(?:``)?([a-z_][\w.]*(?:, [a-z_]\w*)*|Args|Returns|Raises)(?:``)?:(?: (\S.*))?")


def definitions(lines: list[str]) -> list[str]:
    """``name: text`` with indented further lines, as docstrings here describe fields, as definitions of reST."""
    out: list[str] = []
    while lines:
        match = FIELD.fullmatch(lines[0])
        if not match:
            out.append(lines[0])
            lines = lines[1:]
            continue
        block = list(itertools.takewhile(lambda line: line.startswith(" "), lines[1:]))
        lines = lines[1 + len(block) :]
        names = ", ".join(name if name[0].isupper() else f"``{name}``" for name in match[1].split(", "))
        body = "\n".join([match[2] or "", *definitions(textwrap.dedent("\n".join(block)).splitlines())]).strip().splitlines()
        out += ["", names, *(f"    {line}" for line in body), ""]
    return out


def fields_as_definitions(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """All but the first line of a docstring, which is a sentence."""
    lines[1:] = definitions(lines[1:])


def with_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """The README is the front page: GitHub shows it without the table of contents. The reference's pages would make that endless."""
    if docname == root_doc:
        source[0] += CONTENTS
    elif docname == f"{autoapi_root}/flrplan/index":
        source[0] = f":orphan:\n\n{source[0]}"


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """What a page writes as code and begins with the package's name leads to the reference. The changelog names what is gone."""
    docname = app.env.current_document.docname
    if docname == "CHANGELOG" or docname.startswith(f"{autoapi_root}/"):
        return
    for literal in list(doctree.findall(nodes.literal)):
        if re.fullmatch(r"flrplan(\.\w+)+", name := literal.astext()):
            link = pending_xref("", literal.deepcopy(), refdomain="py", reftype="obj", reftarget=name, refdoc=docname)
            literal.replace_self(link)


def by_last_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element) -> nodes.Element | None:
    """Links what is named by where it is imported from, or by its last name alone. Where several things are called so, there is no link;
    where none is, Sphinx says that it is missing.
    """
    if node.get("refdomain") != "py":
        return None
    domain = env.domains.python_domain
    found = domain.find_obj(env, "", "", node["reftarget"].rpartition(".")[2], None, 1)
    found = [one for one in found if one[1].objtype != "module"] or found
    if len(found) > 1:
        return contnode
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0][0], node, contnode) if found else None


def is_logger(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool:
    """Loggers are no part of the reference."""
    return skip or name.rpartition(".")[2] in ("log", "logger")


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("doctree-read", link_names)
    app.connect("missing-reference", by_last_name)
    app.connect("autoapi-skip-member", is_logger)
    app.connect("source-read", with_contents)
    app.connect("autodoc-process-docstring", fields_as_definitions)
