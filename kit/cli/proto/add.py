"""A proto to begin with: five methods with HTTP rules, and an enum of errors.

Source: go-kratos/kratos cmd/kratos/internal/proto/add.
"""

import re
from pathlib import Path

from kit.cli.proto.project import Project, check_name
from kit.cli.protoc.code import snake
from kit.cli.templates import render
from kit.cli.usage import WrongUsage

_VERSION = re.compile(r"v[0-9]+(?:(?:alpha|beta)[0-9]+)?")


def add(project: Project, path: Path) -> tuple[str, str]:
    """The name and the text of the proto for ``path``; nothing is written.

    Raises:
        WrongUsage: it is there already, has no folder, or its name cannot be a package.
    """
    name = project.name_of(path)
    if not name.endswith(".proto"):
        raise WrongUsage(f"{path} is no .proto file; write for example api/shop/v1/order.proto")
    if "/" not in name:
        raise WrongUsage(
            f"{path} has no folder, which names the package; write for example api/shop/v1/{name}"
        )
    check_name(name)
    if path.exists():
        raise WrongUsage(f"{path} is there already; it is left as it is")
    folder, _, file = name.removesuffix(".proto").rpartition("/")
    service = service_name(file)
    version = folder.rpartition("/")[2]
    thing = snake(service)
    return name, render(
        "proto/skeleton.proto.j2",
        package=folder.replace("/", "."),
        go_package=f"{project.root.name}/{folder};{version}",
        service=service,
        thing=thing,
        path=f"/{version if _VERSION.fullmatch(version) else 'v1'}/{thing}"
        + ("" if thing.endswith("s") else "s"),
    )


def service_name(file: str) -> str:
    """The service of a file, as kratos names it.

    >>> service_name("user_center"), service_name("order-v2")
    ('UserCenter', 'OrderV2')
    """
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[-_.]", file))
