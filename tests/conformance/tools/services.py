"""Small services, written to a folder as a user would have them."""

from pathlib import Path

MAIN = """
import sys
from contextlib import asynccontextmanager
from kit import App, run_command
from kit.app import AdminServer, Flags
from kit.config import Config, FileSource
from {package}greeting import TEXT

flags = Flags("hello", "Says hello.", "1")
flags.add("conf", default="configs")
flags.add("loud", action="store_true")

async def serve(options):
    config = Config(FileSource(options.conf))
    await config.load()
    print(TEXT, config.value("word").as_str(), "loud" if options.loud else "calm", flush=True)
    app = App(name="hello", servers=[AdminServer(config.value("admin.addr").as_str())])
    await app.run()
    print("drained", flush=True)

sys.exit(run_command("hello", serve(flags.parse_args())))
"""


def single(folder: Path, *, word: str = "first") -> Path:
    """A service of its own, ``hello`` by its project's name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "hello"\n')
    (folder / "main.py").write_text(MAIN.replace("{package}", ""))
    (folder / "greeting.py").write_text('TEXT = "one"\n')
    (folder / "configs").mkdir()
    (folder / "configs" / "config.yaml").write_text(config(word))
    return folder


def several(folder: Path, *names: str) -> Path:
    """A folder of services that share ``shared.py``, each with its own configuration."""
    (folder / "configs").mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "all"\n')
    (folder / "shared.py").write_text('WHO = "all"\n')
    for name in names:
        app = folder / "apps" / name
        app.mkdir(parents=True)
        (folder / "apps" / "__init__.py").touch()
        (app / "__init__.py").touch()
        (app / "main.py").write_text(MAIN.replace("{package}", f"apps.{name}."))
        (app / "greeting.py").write_text(f'from shared import WHO\nTEXT = "{name} of " + WHO\n')
        (folder / "configs" / f"{name}.yaml").write_text(config(name))
    return folder


def config(word: str) -> str:
    """What the services above read."""
    return f"word: {word}\nadmin: {{addr: '127.0.0.1:0'}}\n"
