"""The interpreter of a project and the packages that kit stands on there."""

import asyncio
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from kit.cli.doctor_report import Finding, failed, good, skipped

_ANSWERS_WITHIN = 30.0

_PROBE = """
import json, sys
from importlib import metadata
try:
    kit = metadata.distribution("kit")
    wants, python = kit.requires or [], kit.metadata["Requires-Python"]
except metadata.PackageNotFoundError:
    wants = python = None
print(json.dumps({
    "version": "%d.%d.%d" % sys.version_info[:3],
    "wants": wants,
    "python": python,
    "installed": {each.metadata["Name"]: each.version for each in metadata.distributions()},
}))
"""
"""Runs on the oldest Python that still has ``importlib.metadata``."""


async def check_python(python: str, root: Path, extras: Mapping[str, str]) -> list[Finding]:
    """Whether the interpreter is new enough, for kit and for the project, and has the packages.

    Args:
        python: the interpreter that runs the services.
        root: of the project, where ``pyproject.toml`` may be.
        extras: those of kit that a configuration needs, with the place that says so.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(python, "-c", _PROBE),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
        )
        async with asyncio.timeout(_ANSWERS_WITHIN):
            said, complaint = await process.communicate()
        found = json.loads(said)
    except OSError as error:
        return [failed("python", python, f"cannot be run: {error.strerror}; make the .venv anew")]
    except TimeoutError:
        process.kill()
        await process.wait()
        return [failed("python", python, f"no answer in {_ANSWERS_WITHIN:g} s; look what it does")]
    except ValueError:
        last = (complaint.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        why = f"does not work: {last}; install Python 3.11 or newer and make the .venv anew"
        return [failed("python", python, why)]
    findings = [_version(python, found["version"], found["python"] or ">=3.11", "kit")]
    if wanted := _project_python(root):
        place = str(root / "pyproject.toml")
        findings.append(_version(python, found["version"], wanted, place))
    if found["wants"] is None:
        why = f"kit is not installed for {python}; install it there, or activate another .venv"
        return [*findings, failed("packages", "kit", why)]
    return [*findings, *_packages(found["wants"], found["installed"], extras)]


def _version(python: str, version: str, wanted: str, who: str) -> Finding:
    try:
        fits = SpecifierSet(wanted).contains(version, prereleases=True)
    except InvalidSpecifier:
        why = f"requires-python {wanted!r} is no version; write for example >=3.11"
        return failed("python", who, why)
    if fits:
        return good("python", python, f"{version} is what {who} needs ({wanted})")
    why = f"is Python {version}, and {who} needs {wanted}; make the .venv with such a one"
    return failed("python", python, why)


def _project_python(root: Path) -> str | None:
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text()).get("project", {})
    except (OSError, ValueError):
        return None
    wanted = project.get("requires-python") if isinstance(project, dict) else None
    return wanted if isinstance(wanted, str) else None


def _packages(
    wants: Iterable[str], installed: Mapping[str, str], needed: Mapping[str, str]
) -> list[Finding]:
    versions = {canonicalize_name(name): version for name, version in installed.items()}
    missing: dict[str, list[str]] = {"": []}
    have: dict[str, list[str]] = {"": []}
    for text in wants:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        extra = _extra_of(requirement)
        version = versions.get(canonicalize_name(requirement.name))
        missing.setdefault(extra, [])
        have.setdefault(extra, [])
        if version is None:
            missing[extra].append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(version, prereleases=True):
            wanted = f"{requirement.name}{requirement.specifier}"
            missing[extra].append(f"{requirement.name} is {version}, not {wanted}")
        else:
            have[extra].append(f"{requirement.name} {version}")
    findings = [
        failed("packages", "kit", f"{', '.join(missing[''])}; pip install --upgrade kit")
        if missing[""]
        else good("packages", "kit", f"its {len(have[''])} packages are installed")
    ]
    for extra in sorted(missing.keys() - {""}):
        subject = f"kit[{extra}]"
        if not missing[extra]:
            findings.append(good("packages", subject, ", ".join(have[extra])))
        elif extra in needed or (have[extra] and _is_old(missing[extra])):
            who = f", and {needed[extra]} needs it" if extra in needed else ""
            why = f"{', '.join(missing[extra])}{who}; pip install 'kit[{extra}]'"
            findings.append(failed("packages", subject, why))
        else:
            findings.append(
                skipped("packages", subject, "not installed, and nothing here needs it")
            )
    return findings


def _is_old(complaints: Iterable[str]) -> bool:
    return any(" is not installed" not in complaint for complaint in complaints)


def _extra_of(requirement: Requirement) -> str:
    """The extra that a requirement belongs to; empty for none."""
    marker = str(requirement.marker or "")
    _, found, rest = marker.partition('extra == "')
    return rest.partition('"')[0] if found else ""
