"""Makes pages of every package's README and public names, and of the EVIDENCE.md files."""

import ast
import re
import tomllib
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))


@event_priority(100)  # before mkdocstrings reads its own configuration
def on_config(config):
    """Lets mkdocstrings find every package's sources."""
    handler = config.plugins["mkdocstrings"].config.handlers.setdefault("python", {})
    handler["paths"] = [str(package / "src") for package in PACKAGES]
    return config


def on_page_markdown(markdown, page, config, files):
    """Formulas between dollars, which the pages on theory have, become MathML for the browser."""
    if not page.file.src_uri.startswith("theory/"):
        return markdown
    markdown = re.sub(
        r"\$\$\n(.+?)\n\$\$", lambda m: convert(m[1], display="block"), markdown, flags=re.DOTALL
    )
    return re.sub(r"\$([^$\n]+)\$", lambda m: convert(m[1]), markdown)


def on_files(files, config):
    """Adds the generated pages."""
    for package in PACKAGES:
        text = (package / "README.md").read_text()
        files.append(_page(config, f"packages/{package.name}.md", text + _reference(package)))
        if (package / "EVIDENCE.md").is_file():
            text = (package / "EVIDENCE.md").read_text()
            files.append(_page(config, f"evidence/{package.name}.md", text))
    files.append(_page(config, "evidence.md", (ROOT / "EVIDENCE.md").read_text()))
    return files


def _page(config, path: str, text: str) -> File:
    """A page whose links to the docs folder and to other READMEs still lead there."""
    up = "../" if "/" in path else ""
    text = text.replace("](../../docs/", f"]({up}").replace("](docs/", f"]({up}")
    text = text.replace("](../../EVIDENCE.md", f"]({up}evidence.md")
    text = text.replace(
        "](EVIDENCE.md", f"]({up}evidence/{Path(path).name}" if up else "](evidence.md"
    )
    for package in PACKAGES:
        text = text.replace(
            f"](packages/{package.name}/EVIDENCE.md", f"](evidence/{package.name}.md"
        )
        for prefix in ("../", "packages/"):
            text = text.replace(
                f"]({prefix}{package.name}/README.md", f"]({up}packages/{package.name}.md"
            )
    return File.generated(config, path, content=text)


def _reference(package: Path) -> str:
    """Directives for the public names of a package, or of its parts where it has none itself."""
    names = tomllib.loads((package / "pyproject.toml").read_text())
    source = names["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"][0]
    module, folder = source.removeprefix("src/"), package / source
    if public := _public(folder):
        return "\n\n## Reference\n" + _directives(module, public)
    parts = [path.parent for path in sorted(folder.glob("*/__init__.py"))]
    return "\n\n## Reference\n" + "".join(
        f"\n### {part.name}\n" + _directives(f"{module}.{part.name}", _public(part))
        for part in parts
    )


def _directives(module: str, names: list[str]) -> str:
    return "".join(f"\n::: {module}.{name}\n" for name in names)


def _public(folder: Path) -> list[str]:
    """What `__all__` lists; nothing where there is none."""
    tree = ast.parse((folder / "__init__.py").read_text())
    return [
        name
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        for name in ast.literal_eval(node.value)
    ]
