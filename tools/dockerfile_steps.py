"""Run the Dockerfile's steps in a folder with a Debian root, where no builder is at hand.

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm ROOT
    sudo python tools/dockerfile_steps.py ROOT SLIDE [--stage cpu]

In place of Python's image the root gets a virtual environment in ``/usr/local``. At the end its
health is checked and SLIDE counted as the Dockerfile's head says: by another user, read-only but
for ``/tmp`` and ``/data``, without network. Steps that the root has been through are done again.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click

HERE = Path(__file__).parent.parent
SEALED = """
mount --bind {root} {root} && mount -o remount,bind,ro {root} && mount -t proc proc {root}/proc &&
mount --rbind /dev {root}/dev && mount -t tmpfs tmpfs {root}/tmp &&
mount --bind {data} {root}/data &&
exec chroot --userspec={user} {root} /usr/bin/env -C /data {command}
"""


def stage_lines(text: str, stage: str) -> Iterator[tuple[str, str]]:
    """Instructions of a stage, as (name, rest), those of the stage that it stands on first."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text))
    stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    name = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            source, _, name = rest.split()
            stages[name] = (source, [])
        else:
            stages[name][1].append((word, rest))
    source, steps = stages[stage]
    if source in stages:
        yield from stage_lines(text, source)
    yield from steps


@click.command()
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("slide", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--stage", default="cpu", show_default=True)
def main(root: Path, slide: Path, stage: str) -> None:
    """Build, check, count."""
    root = root.resolve()
    plain = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    last: dict[str, str] = {}
    folder = Path("/")

    def run(command: str) -> None:
        click.echo(f"+ {command}")
        inside = ["chroot", str(root), "/usr/bin/env", "-C", str(folder), "sh", "-c", command]
        subprocess.run(inside, env=plain, check=True)

    run("python3 -m venv /usr/local")
    for word, rest in stage_lines((HERE / "Dockerfile").read_text(), stage):
        if word == "RUN":
            run(rest.replace("useradd", "id -u cellseg || useradd"))
        elif word == "ENV":
            plain |= dict(part.split("=", 1) for part in shlex.split(rest))
        elif word == "WORKDIR":
            folder = Path(rest)
            (root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            tracked = rest.split()[0]
            files = subprocess.run(
                ["git", "archive", "HEAD", tracked], cwd=HERE, check=True, stdout=subprocess.PIPE
            )
            subprocess.run(["tar", "x", "-C", root / "src"], input=files.stdout, check=True)
        else:
            last[word] = rest
    data = root.parent / f"{root.name}-data"
    data.mkdir(exist_ok=True)
    shutil.copy(slide, data)
    os.chown(data, int(last["USER"]), -1)
    health = last["HEALTHCHECK"].partition("CMD ")[2]
    checks = shlex.split(health.strip("[]").replace(",", " "))
    for words in (checks, ["cellseg", "count", slide.name]):
        command = shlex.join(words)
        click.echo(f"+ (sealed) {command}")
        script = SEALED.format(root=root, data=data, user=last["USER"], command=command)
        subprocess.run(["unshare", "--mount", "--net", "sh", "-c", script], env=plain, check=True)


if __name__ == "__main__":
    main()
