"""Find dead links in the Markdown files of the checkout: to files and headings that do not exist."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def main() -> int:
    """Print each dead link; the exit code is 1 when there is one."""
    dead = [f"{file}: {link}" for file in markdown_files() for link in dead_links(file)]
    print("\n".join(dead) or "No dead links.")
    return 1 if dead else 0


def markdown_files() -> list[Path]:
    """Return the Markdown files of the checkout, new ones included."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()
    return [Path(name) for name in names if Path(name).exists()]


def dead_links(file: Path) -> Iterator[str]:
    """Yield the links of a file that lead nowhere; addresses on the network are not tried."""
    for link in LINK.findall(CODE.sub("", file.read_text(encoding="utf-8"))):
        if ELSEWHERE.match(link):
            continue
        path, _, heading = link.partition("#")
        target = (file.parent / path) if path else file
        if not target.exists() or (heading and target.suffix == ".md" and heading not in anchors(target)):
            yield link


def anchors(file: Path) -> set[str]:
    """Return the anchors that GitHub gives to a file's headings."""
    headings = HEADING.findall(re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.M | re.S))
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    repeated = {f"{name}-{n}" for n in range(1, 10) for name in plain if plain.count(name) > n}
    return {*plain, *repeated}


if __name__ == "__main__":
    sys.exit(main())
