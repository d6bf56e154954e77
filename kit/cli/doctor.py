"""``kit doctor``: why does it not work here?"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kit.cli.run_find import chosen, complete, services_of

if TYPE_CHECKING:
    from kit.cli.doctor_report import Finding


@click.command(short_help="Find out why something does not work here.")
@click.argument("which", nargs=-1, metavar="[NAME|FOLDER] ...", shell_complete=complete)
@click.option("--conf", type=click.Path(exists=True, path_type=Path), help="In place of its own.")
@click.option("--etcd", metavar="HOST:PORT,...", help="Beside those of the configurations.")
@click.option(
    "--coordinator",
    metavar="ADDRESS",
    help="http://host:port or host:port (gRPC); by default the one that is announced.",
)
@click.option("--service", "names", multiple=True, metavar="NAME", help="Has to be announced.")
@click.option("--target", "targets", multiple=True, metavar="URL", help="Has to be reachable.")
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Authorities for targets with TLS, beside the system's.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def doctor(
    ctx: click.Context,
    which: tuple[str, ...],
    conf: Path | None,
    etcd: str | None,
    coordinator: str | None,
    names: tuple[str, ...],
    targets: tuple[str, ...],
    ca: Path | None,
    as_json: bool,
) -> None:
    r"""Check what the services of this folder need, and say in a sentence what is wrong.

    Looked at are Python and the packages, the configurations, their ports, etcd and its members,
    who is announced and whether it listens, the coordinator, clocks, certificates, and every URL
    that a configuration names. Nothing is changed anywhere.

    \b
    Examples:
      kit doctor                                   all services of the folder
      kit doctor trans --service trans             and it has to be announced
      kit doctor --etcd 10.0.0.5:2379 --coordinator http://10.0.0.6:36789
      kit doctor --target grpcs://bank:9000 --ca ca.pem
      kit doctor --json | jq '.findings[] | select(.state == "failed")'

    Exit status: 0 all good, 1 something failed, 2 bad usage.
    """
    from kit import log
    from kit.app import run as run_async
    from kit.cli.doctor_examination import Examination
    from kit.cli.doctor_servers import is_target
    from kit.etcd import EtcdOptions

    here = Path.cwd()
    services = chosen(which, here) if which else services_of(here)
    if conf is not None and len(services) != 1:
        raise click.UsageError("--conf is for one service; name it")
    for target in targets:
        if not is_target(target):
            raise click.BadParameter(
                f"{target!r} is no URL; write for example grpc://host:9000", param_hint="--target"
            )
    try:
        given = EtcdOptions.of(etcd) if etcd else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--etcd") from None
    log.configure(level="fatal")
    examination = Examination(services, here, ca)
    findings = run_async(
        examination.examine(
            conf=conf, etcd=given, coordinator=coordinator, names=names, targets=targets
        )
    )
    _print(findings, as_json=as_json)
    ctx.exit(1 if any(one.state == "failed" for one in findings) else 0)


def _print(findings: "Sequence[Finding]", *, as_json: bool) -> None:
    wrong = sum(one.state == "failed" for one in findings)
    if as_json:
        shown = [
            {"check": one.check, "subject": one.subject, "state": one.state, "text": one.text}
            for one in findings
        ]
        click.echo(json.dumps({"ok": not wrong, "findings": shown}, indent=2, ensure_ascii=False))
        return
    colours = {"ok": "green", "failed": "red", "skipped": "yellow"}
    for one in findings:
        state = click.style(f"{one.state:<8}", fg=colours[one.state])
        click.echo(f"{state}{one.check:<13} {one.subject}: {one.text}", color=_coloured())
    click.echo(f"{wrong} of {len(findings)} checks failed" if wrong else "all good")


def _coloured() -> bool | None:
    """``False`` where ``NO_COLOR`` says so; else click looks at the terminal."""
    return False if os.environ.get("NO_COLOR") else None
