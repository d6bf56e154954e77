"""Which services ``kit run`` and its like find in a folder, and what each is started with."""

import sys
from pathlib import Path

import click
import pytest

from kit.cli.run_find import Service, chosen, services_of


def put(path: Path, text: str = 'flags.add("conf")') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def project(folder: Path, name: str) -> Path:
    put(folder / "pyproject.toml", f'[project]\nname = "{name}"\n')
    return folder


def started(service: Service) -> tuple[str, str, list[str]]:
    """Its name, where it is started, and how, after the interpreter."""
    return service.name, service.root.name, service.command()[1:]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with a service at its root and two below."""
    shop = project(tmp_path / "my-shop", "shop")
    put(shop / "main.py")
    put(shop / "stock" / "main.py")
    put(shop / "apps" / "orders" / "main.py")
    put(shop / "apps" / "tool" / "main.py", "print()")
    put(shop / "tests" / "main.py")
    return shop


def test_services_are_started_from_the_root_of_their_project(shop: Path) -> None:
    """By the name of the project at the root, else by that of their folder."""
    assert list(map(started, services_of(shop))) == [
        ("shop", "my-shop", ["-m", "main"]),
        ("orders", "my-shop", ["-m", "apps.orders.main"]),
        ("stock", "my-shop", ["-m", "stock.main"]),
    ]


def test_a_folder_below_or_above_a_project_leads_to_it(shop: Path) -> None:
    """To the service that is there, to all of the project, or to all projects."""
    assert [started(one) for one in services_of(shop / "stock")] == [
        ("stock", "my-shop", ["-m", "stock.main"])
    ]
    (shop / "api" / "v1").mkdir(parents=True)
    assert services_of(shop / "api" / "v1") == services_of(shop)
    put(project(shop.parent / "bank", "bank") / "main.py")
    assert [one.name for one in services_of(shop.parent)] == ["bank", "shop", "orders", "stock"]


def test_names_that_two_have_are_told_apart(shop: Path) -> None:
    """By their roots, and the variables of their configuration are what they were."""
    put(project(shop.parent / "bank", "bank") / "stock" / "main.py")
    found = chosen(["my-shop/stock", "bank/stock"], shop.parent)
    assert [(one.name, one.environment_prefix) for one in found] == [
        ("my-shop/stock", "STOCK"),
        ("bank/stock", "STOCK"),
    ]
    with pytest.raises(click.UsageError, match="neither a service nor a folder"):
        chosen(["garden"], shop.parent)


def test_the_configuration_is_the_nearest_one(shop: Path) -> None:
    """``-conf`` of the user wins, in any spelling."""
    wanted = ["configs", "configs/config.yaml", "configs/stock.yaml", "stock/configs"]
    for conf in wanted:
        put(shop / conf / "config.yaml" if conf.endswith("configs") else shop / conf, "")
        (stock,) = (one for one in services_of(shop) if one.name == "stock")
        place = "configs/config.yaml" if conf == "configs" else conf
        assert stock.command()[3:] == ["-conf", place]
    root = services_of(shop)[0]
    assert root.command()[3:] == ["-conf", "configs"]
    for given in (["-conf", "x"], ["--conf=x"]):
        assert root.command(given)[3:] == given


def test_a_project_has_its_own_interpreter(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else that of the active environment, else ours."""
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    assert services_of(shop)[0].command()[0] == sys.executable
    active = put(shop.parent / "active" / "bin" / "python")
    monkeypatch.setenv("VIRTUAL_ENV", str(shop.parent / "active"))
    assert services_of(shop)[0].command()[0] == str(active)
    own = put(shop / ".venv" / "bin" / "python")
    assert services_of(shop)[0].command()[0] == str(own)
