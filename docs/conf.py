"""How Sphinx makes a site of these pages: ``nox -s docs``, or ``sphinx-build -W -b dirhtml docs build/docs``."""

from __future__ import annotations

from importlib.metadata import version as version_of

from sphinx.application import Sphinx

project = "trio-session-engine"
author = "the trio-session-engine authors"
release = version_of("trio-session-engine")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

suppress_warnings = ["ref.python"]  # the doors without Trio have classes of the same names

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

default_role = "py:obj"  # `engine.Timeouts` in a docstring is a link

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "trio-session-engine"
html_show_copyright = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6e4f", "color-brand-content": "#0b6e4f"},
    "dark_css_variables": {"color-brand-primary": "#4fc08d", "color-brand-content": "#4fc08d"},
}


def rejoin(app: Sphinx, what: str, name: str, described: object, options: object, lines: list[str]) -> None:
    """Put a property's docstring together again: Napoleon takes what stands before its first colon for a type."""
    if what not in {"attribute", "data", "property"}:
        return
    for number, line in enumerate(lines):
        if line.startswith(":type: "):
            del lines[number]
            lines[0] = f"{line.removeprefix(':type: ')}: {lines[0]}"
            return


# Other calls return these; their constructors are not for callers.
NOT_MADE = {f"engine.{name}" for name in ("Engine", "Session", "Lane", "Turn", "Texts", "Conversation", "Reply")}


def without_constructor(
    app: Sphinx, what: str, name: str, described: object, options: object, signature: str, returned: str
) -> tuple[str, str] | None:
    """Leave out the signature of a class that callers do not make."""
    return ("", "") if name in NOT_MADE else None


def setup(app: Sphinx) -> None:
    """Have it done when Napoleon is done: at priority 500."""
    app.connect("autodoc-process-docstring", rejoin, priority=600)
    app.connect("autodoc-process-signature", without_constructor)
