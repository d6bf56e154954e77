"""One lifecycle for everything that runs in a process.

::

    app = App(name="trans", version="v1.0.0", servers=[server, admin, jobs], registrar=registry)
    await app.run()  # until SIGTERM, SIGQUIT or SIGINT

:mod:`kit.app.lifecycle` starts and stops; its servers may be gRPC and HTTP servers, the
coordinator, :mod:`~kit.app.admin` for probes, :mod:`~kit.app.jobs` for work at set times,
:mod:`~kit.app.consumer` for messages. :mod:`kit.app.leader` is imported by who needs etcd.
"""

from kit.app.admin import AdminServer, Check
from kit.app.command import Flags, run, run_command
from kit.app.consumer import Consumer
from kit.app.jobs import Job, Jobs, Leader, Run, Term, current_run
from kit.app.lifecycle import SIGNALS, App, Hook, current_app
from kit.app.loglevel import follow_level
from kit.app.schedule import Cron, Every, Schedule

__all__ = [
    "SIGNALS",
    "AdminServer",
    "App",
    "Check",
    "Consumer",
    "Cron",
    "Every",
    "Flags",
    "Hook",
    "Job",
    "Jobs",
    "Leader",
    "Run",
    "Schedule",
    "Term",
    "current_app",
    "current_run",
    "follow_level",
    "run",
    "run_command",
]
