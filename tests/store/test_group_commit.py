"""Groups of commits: many callers, one transaction, each with its own result."""

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.support.store_steps import begun
from watchdog.errors import DatabaseUnavailable
from watchdog.store.aio.group_commit import GroupCommit


class Committer:
    """Commits what it is told to, when it is let; the result of an item is its double."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.errors: list[Exception | None] = []
        self.commits: GroupCommit[int, int] = GroupCommit(self.commit)

    async def commit(self, items: Sequence[int]) -> Sequence[int]:
        self.groups.append(list(items))
        await self.gate.wait()
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return [item * 2 for item in items]


class TestGroupCommit:
    async def test_each_caller_gets_its_own_result(self) -> None:
        committer = Committer()
        assert await asyncio.gather(*(committer.commits.submit(number) for number in range(5))) == [0, 2, 4, 6, 8]
        assert committer.groups == [[0, 1, 2, 3, 4]]
        assert await committer.commits.submit(9) == 18

    async def test_what_comes_during_a_commit_goes_into_the_next_together(self) -> None:
        committer = Committer()
        committer.gate.clear()
        first = await begun(committer.commits.submit(1))
        later = await begun(*(committer.commits.submit(number) for number in (2, 3, 4)))
        assert committer.groups == [[1]]
        committer.gate.set()
        assert await asyncio.gather(*first, *later) == [2, 4, 6, 8]
        assert committer.groups == [[1], [2, 3, 4]]

    async def test_a_group_has_its_limit_and_its_order(self) -> None:
        committer = Committer()
        assert len(await asyncio.gather(*(committer.commits.submit(number) for number in range(450)))) == 450
        assert [len(group) for group in committer.groups] == [200, 200, 50]
        assert [number for group in committer.groups for number in group] == list(range(450))

    async def test_an_error_reaches_every_caller_of_its_group_and_no_other(self) -> None:
        committer = Committer()
        committer.errors = [DatabaseUnavailable("locked"), None]
        committer.gate.clear()
        failing = await begun(*(committer.commits.submit(number) for number in (1, 2)))
        others = await begun(committer.commits.submit(3))
        committer.gate.set()
        results = await asyncio.gather(*failing, *others, return_exceptions=True)
        assert [str(result) for result in results] == ["locked", "locked", "6"]
        assert await committer.commits.submit(4) == 8

    async def test_a_caller_that_is_cancelled_takes_nothing_with_it(self) -> None:
        committer = Committer()
        committer.gate.clear()
        leaving, staying = await begun(committer.commits.submit(1), committer.commits.submit(2))
        (waiting,) = await begun(committer.commits.submit(3))
        leaving.cancel()
        waiting.cancel()
        await asyncio.wait((leaving, waiting))
        assert leaving.cancelled()
        committer.gate.set()
        assert await staying == 4
        await begun()
        assert committer.groups == [[1, 2], [3]]

    async def test_an_error_for_nobody_is_no_noise(self) -> None:
        noise: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: noise.append(context))
        committer = Committer()
        committer.errors = [DatabaseUnavailable("locked")]
        committer.gate.clear()
        (leaving,) = await begun(committer.commits.submit(1))
        leaving.cancel()
        committer.gate.set()
        await begun()
        assert leaving.cancelled()
        assert await committer.commits.submit(2) == 4
        assert noise == []
