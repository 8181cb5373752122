"""What a release takes from the repository: version, notes, the address, the page on PyPI.

    python scripts/release.py check [TAG]   # versions and addresses agree; may the tag be released?
    python scripts/release.py notes         # the section of CHANGELOG.md for the version
    python scripts/release.py readme        # README.md with absolute links, as PyPI needs it
    python scripts/release.py address       # writes the repository's address wherever it stands

The version is that of jaxtv/__init__.py, the address that of `project.urls` in pyproject.toml.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).parent.parent
# The repository, as GitHub, Colab and git+https name it, and the site of the documentation.
REPOSITORY = re.compile(
    r"(github\.com/|google\.com/github/|usercontent\.com/)[\w-]+/jaxtv(?![\w-])"
)
SITE = re.compile(r"(?<=https://)[\w-]+(\.github\.io/jaxtv)")
# Files that name the version: pattern of what has to be the version.
VERSIONS = {
    "pyproject.toml": r"jaxtv-cuda\d+-plugin==([\w.]+)",
    "CITATION.cff": r"^version: (.+)$",
    "conda/recipe.yaml": r'^  version: "?([\w.]+)"?$',
}


def version(root: pathlib.Path = ROOT) -> str:
    """The version of the package."""
    text = (root / "jaxtv/__init__.py").read_text("utf-8")
    return re.search(r'^__version__ = "(.*)"$', text, re.M)[1]


def repository(root: pathlib.Path = ROOT) -> str:
    """Owner and name, such as jaxtv/jaxtv."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    return project["urls"]["Repository"].removeprefix("https://github.com/")


def texts(root: pathlib.Path) -> dict[str, str]:
    """The tracked files that may name the address."""
    kinds = ("*.md", "*.toml", "*.yml", "*.yaml", "*.cff", "*.ipynb", "*.py", ":!tests")
    command = ["git", "-C", str(root), "ls-files", "-z", *kinds]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name: (root / name).read_text("utf-8") for name in names.split("\0")[:-1]}


def addressed(text: str, owner_and_name: str) -> str:
    """The text with this address."""
    text = REPOSITORY.sub(rf"\g<1>{owner_and_name}", text)
    return SITE.sub(rf"{owner_and_name.split('/')[0]}\g<1>", text)


def problems(root: pathlib.Path = ROOT, tag: str | None = None) -> list[str]:
    """Where versions or addresses differ, and why a tag may not be released."""
    own, found = version(root), []
    for name, pattern in VERSIONS.items():
        named = re.findall(pattern, (root / name).read_text("utf-8"), re.M)
        if not named or set(named) != {own}:
            found.append(f"{name} names version {', '.join(named) or 'none'}, the package is {own}")
    if heading(root).split(",")[0] != own:
        found.append(f"CHANGELOG.md begins with “{heading(root)}”, the package is {own}")
    for name, text in texts(root).items():
        if addressed(text, repository(root)) != text:
            found.append(
                f"{name} has another address than pyproject.toml: scripts/release.py address"
            )
    if tag is not None and tag != f"v{own}":
        found.append(f"the tag is {tag}, the package is {own}")
    if tag is not None and "unreleased" in heading(root):
        found.append(f"CHANGELOG.md: “{heading(root)}” needs a date")
    return found


def heading(root: pathlib.Path) -> str:
    """The first heading of the changelog: version and date."""
    return re.search(r"^## (.*)$", (root / "CHANGELOG.md").read_text("utf-8"), re.M)[1]


def notes(root: pathlib.Path = ROOT) -> str:
    """What the changelog says of the latest version, as GitHub shows it on the page of a release.

    There a line break within a paragraph is a break, and links need the whole address.
    """
    section = re.split(r"^## .*\n", (root / "CHANGELOG.md").read_text("utf-8"), flags=re.M)[1]
    unwrapped = re.sub(r"(?<=\S)\n *(?![\s#-])", " ", section.strip())
    return absolute(unwrapped, repository(root), f"v{version(root)}")


def absolute(text: str, owner_and_name: str, at: str) -> str:
    """A page with absolute links: to files of pictures, and to pages of the repository at a tag."""

    def link(found: re.Match) -> str:
        picture, label, target = found.groups()
        if re.match(r"\w+:|#", target):
            return found[0]
        host = "https://raw.githubusercontent.com" if picture else "https://github.com"
        folder = f"{owner_and_name}/{at}" if picture else f"{owner_and_name}/blob/{at}"
        return f"{picture}[{label}]({host}/{folder}/{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def main(args: list[str] | None = None) -> None:
    """Run a command; the exit status is 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check").add_argument("tag", nargs="?")
    for name in ("notes", "readme", "address"):
        commands.add_parser(name)
    options = parser.parse_args(args)
    if options.command == "check":
        if found := problems(tag=options.tag):
            sys.exit("\n".join(found))
    elif options.command == "notes":
        print(notes())
    elif options.command == "readme":
        page = ROOT / "README.md"
        page.write_text(absolute(page.read_text("utf-8"), repository(), f"v{version()}"), "utf-8")
    else:
        for name, text in texts(ROOT).items():
            (ROOT / name).write_text(addressed(text, repository()), "utf-8")


if __name__ == "__main__":
    main()
