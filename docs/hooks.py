"""Pages of the site that are made from what already says it: the README, the commands, the API."""

from __future__ import annotations

import re
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import cellseg
from cellseg.cli import cli

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file holds."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {
        "index.md": readme.replace("](docs/", "]("),
        "commands.md": commands(),
        "api.md": api(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=within(text)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to the repository's files become their names: the site has no copy of them."""
    return within(markdown)


def within(text: str) -> str:
    """Text whose links lead to the site's pages, to its pictures, or to other sites."""

    def kept(link: re.Match[str]) -> str:
        label, target = link.groups()
        inside = re.match(r"(https?:|#|(\.\./)?(lab/)?(images/|[a-z-]+\.md))", target)
        return link.group() if inside else label

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", kept, text)


def commands() -> str:
    """Every command's own help."""
    parts = ["# Commands\n\nAs `cellseg COMMAND --help` says it.\n"]
    context = click.Context(cli, info_name="cellseg")

    def add(group: click.Group, above: click.Context) -> None:
        for name in group.list_commands(above):
            command = group.get_command(above, name)
            assert command is not None
            own = click.Context(command, info_name=name, parent=above, terminal_width=96)
            if isinstance(command, click.Group):
                add(command, own)
            else:
                parts.append(f"## {own.command_path}\n\n```text\n{command.get_help(own)}\n```\n")

    add(cli, context)
    return "\n".join(parts)


def api() -> str:
    """The public names, each with its docstring."""
    names = [name for name in cellseg.__all__ if not name.startswith("_")]
    where = {name: getattr(cellseg, name) for name in names}
    parts = ["# Python\n\nWhat `import cellseg` offers. A whole analysis: `docs/notebook.ipynb`.\n"]
    for name, thing in where.items():
        module = getattr(thing, "__module__", "cellseg")
        parts.append(f"## cellseg.{name}\n\n::: {module}.{name}\n")
    return "\n".join(parts)


def on_page_content(html: str, **_: object) -> str:
    """Without Sphinx's roles, which mkdocs shows as text."""
    return re.sub(r":(attr|class|data|func|meth|mod):\s*(?=<code>)", "", html)
