"""One run of ``kit dev``: the stack, the services on it, and who is announced."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from kit.cli.dev_announced import tell_announced
from kit.cli.dev_stack import COORDINATOR_NAME, Ports, Stack, StackError
from kit.cli.run_conf import overrides
from kit.cli.run_find import Service
from kit.cli.run_process import Board
from kit.cli.run_proto import generator
from kit.cli.run_supervise import KIT, Supervisor, until_signal
from kit.cli.run_watch import TooMuch
from kit.config import ConfigError
from kit.log import mask_urls
from kit.transport.grpc.engines import EngineName


class Session:
    """Everything that one ``kit dev`` has started.

    Args:
        services: of the folder.
        folder: keeps the data.
        ports: where the stack listens.
        reload: start services again when they change.
        engine: what speaks HTTP/2 for the coordinator's gRPC; its own choice for ``None``.
    """

    def __init__(
        self,
        services: Sequence[Service],
        folder: Path,
        ports: Ports,
        *,
        reload: bool,
        engine: EngineName | None = None,
    ) -> None:
        self._services = services
        self._folder = folder
        self._ports = ports
        self._reload = reload
        self._engine = engine
        self._board = Board(["etcd", "coordinator", KIT, *(each.name for each in services)])
        self._stack: Stack | None = None
        self._supervisor: Supervisor | None = None

    async def run(self) -> int:
        """Until a signal, or until a part ends; the exit status.

        Raises:
            StackError: a part could not be started, or ended.
        """
        return await until_signal(self._work(), self._kill)

    async def _work(self) -> int:
        async with AsyncExitStack() as closing:
            self._stack = Stack(self._folder, self._board, closing, self._ports)
            etcd = await self._stack.etcd()
            coordinator = await self._stack.coordinator(etcd, self._engine)
            self._say(f"etcd         {etcd}")
            self._say(f"coordinator  {coordinator.http}")
            self._say(f"             grpc://{coordinator.grpc}")
            self._say(f"             {coordinator.target}")
            self._say(f"data         {self._folder}")
            return await self._serve(self._stack, etcd)

    async def _serve(self, stack: Stack, etcd: str) -> int:
        """Run the services until they end, which they do without reload only."""
        parts = asyncio.create_task(stack.first_end())
        tasks: list[asyncio.Task[object]] = [
            asyncio.create_task(tell_announced(etcd, self._tell)),
            asyncio.ensure_future(parts),
        ]
        services: asyncio.Task[int] | None = None
        if self._services:
            self._supervisor = await self._supervise(etcd)
            services = asyncio.create_task(self._supervisor.run())
            tasks.append(asyncio.ensure_future(services))
        else:
            self._say("there is no service here; kit new makes one")
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await stack.check()
        return 1 if services is not None and services.done() and services.result() else 0

    async def _supervise(self, etcd: str) -> Supervisor:
        variables = {each.name: await self._variables(each, etcd) for each in self._services}
        try:
            return Supervisor(
                self._services,
                self._board,
                env=lambda service: variables[service.name],
                generator=generator(),
                reload=self._reload,
            )
        except TooMuch as error:
            raise StackError(str(error)) from None

    async def _variables(self, service: Service, etcd: str) -> Mapping[str, str]:
        try:
            variables = await overrides(service, etcd)
        except ConfigError:  # the service says what is wrong, and where
            return {"ETCD_ENDPOINTS": etcd}
        for name, value in variables.items():
            if name != "ETCD_ENDPOINTS":
                self._say(f"{service.name} gets {name}={mask_urls(value)}")
        return variables

    def _tell(self, name: str, endpoints: tuple[str, ...]) -> None:
        if name != COORDINATOR_NAME:
            self._say(f"{name} is announced at {', '.join(endpoints) or 'no endpoint'}")

    def _say(self, line: str) -> None:
        self._board.show(KIT, line)

    def _kill(self) -> None:
        if self._supervisor is not None:
            self._supervisor.kill()
        for part in self._stack.parts if self._stack else ():
            part.kill()
