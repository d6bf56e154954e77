"""Where a new project gets the kit from.

The name ``kit`` on the package index is not ours: a project that only said ``kit`` would install
somebody else's code. So it says where from: a wheel that travels with the project, a checkout, or
what the user names.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kit.cli.usage import WrongUsage

VENDOR = "vendor"

_REQUIREMENT = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(\s*[<>=!~ ].*)?")
_URL = re.compile(r"(?:git\+)?(?:https?|ssh|file)://\S+")


@dataclass(frozen=True, slots=True)
class KitSource:
    """How ``pyproject.toml`` names the kit.

    Attributes:
        package: its name.
        version: what follows the name, such as ``>=0.2`` or `` @ https://…``.
        source: the value for ``[tool.uv.sources]``; empty for none.
        wheel: to be copied into the project.
        explanation: for the README.
    """

    package: str = "kit"
    version: str = ""
    source: str = ""
    wheel: Path | None = None
    explanation: str = ""

    def requirement(self, extras: Sequence[str]) -> str:
        """A requirement of the kit with ``extras``."""
        return f"{self.package}[{','.join(extras)}]{self.version}"


def kit_source(given: str | None) -> KitSource:
    """Where the kit comes from.

    Args:
        given: a wheel, a checkout, a requirement or a URL; ``None``: from where the running kit was
            installed.

    Raises:
        WrongUsage: it is none of these, or is not there.
    """
    if given is None:
        return _own()
    path = Path(given).expanduser()
    if path.is_dir():
        return _checkout(path)
    if path.suffix == ".whl":
        return _wheel(path)
    if _URL.fullmatch(given):
        return _named("kit", f" @ {given}")
    if match := _REQUIREMENT.fullmatch(given.strip()):
        return _named(match[1], (match[2] or "").strip())
    raise WrongUsage(
        f"--kit {given}: neither a wheel, nor a folder with the kit's sources, nor a requirement "
        "such as kit>=0.1 or git+https://host/kit.git"
    )


def _own() -> KitSource:
    """The same as the running kit.

    Source: PEP 610, direct_url.json.
    """
    installed = distribution("kit")
    text = installed.read_text("direct_url.json")
    if text is None:
        return _named("kit", f"=={installed.version}")
    found = json.loads(text)
    url = str(found["url"])
    if not url.startswith("file:"):
        prefix = f"{found['vcs_info']['vcs']}+" if "vcs_info" in found else ""
        return _named("kit", f" @ {prefix}{url}")
    path = Path(unquote(urlsplit(url).path))
    if not path.exists():
        raise WrongUsage(
            f"{path}, from which this kit was installed, is gone; name a wheel or a checkout "
            "with --kit"
        )
    return _checkout(path) if path.is_dir() else _wheel(path)


def _wheel(path: Path) -> KitSource:
    if not path.is_file():
        raise WrongUsage(f"--kit {path}: no such file")
    if not path.name.startswith("kit-"):
        raise WrongUsage(f"--kit {path}: this is no wheel of the kit")
    return KitSource(
        source=f'{{ path = "{VENDOR}/{path.name}" }}',
        wheel=path,
        explanation=(
            f"It comes as a wheel in `{VENDOR}/`, named in `pyproject.toml` under "
            "`[tool.uv.sources]`. For a newer one put that wheel there, and its name."
        ),
    )


def _checkout(path: Path) -> KitSource:
    if not (path / "kit" / "app").is_dir() or not (path / "pyproject.toml").is_file():
        raise WrongUsage(f"--kit {path}: the kit's sources are not in this folder")
    return KitSource(
        source=f"{{ path = {json.dumps(str(path.absolute()))}, editable = true }}",
        explanation=(
            f"`pyproject.toml` takes it from the checkout `{path.absolute()}`, under "
            "`[tool.uv.sources]`. Other machines and `make image` do not have that folder: build a "
            f"wheel of it into `{VENDOR}/` (`uv build --wheel --out-dir {VENDOR} "
            f'{path.absolute()}`) and write `kit = {{ path = "{VENDOR}/….whl" }}` there, or make '
            "projects with `kit new --kit WHEEL`."
        ),
    )


def _named(package: str, version: str) -> KitSource:
    return KitSource(
        package=package,
        version=version,
        explanation=f"`pyproject.toml` asks for `{package}{version}`.",
    )
