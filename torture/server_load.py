"""V2, V3, V7, V8: a server under load, its end, and its reloads. Each case starts a server of its own.

What a machine is busy with besides stretches times, so the figures of a run are in the result line of `measure`.
"""

import asyncio
import itertools
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torture import served
from torture.check import Check
from torture.malformed import table
from torture.served import Client, Reply, Server, predict

MANY, FEW, CROWD = 64, 16, 256  # clients
SECONDS = (4.0, 60.0)  # of V2, of the sample and of the full case
CROWD_SECONDS = (3.0, 20.0)  # of V3
RELOADS = (10, 100)
MEMORY = 40_000_000  # bytes
SPREAD = 3.0  # p99 over p50
GOODPUT = 0.6
REFUSED_SECONDS = 0.02
REQUESTS = 8  # different ones
MODEL = {"dim": 64, "depth": 4, "patch_size": 2}  # some milliseconds a picture


@dataclass
class Load:
    """What clients saw."""

    seconds: list[float] = field(default_factory=list)  # of answers with 200
    refused: list[float] = field(default_factory=list)  # of answers with 503
    lost: list[str] = field(default_factory=list)  # good requests without an answer, and bad ones without a 4xx
    statuses: Counter[int] = field(default_factory=Counter)

    def quantile(self, share: float, of: str = "seconds") -> float:
        values = sorted(getattr(self, of))
        return values[min(int(share * len(values)), len(values) - 1)] if values else 0.0

    def add(self, status: int, expected: int, seconds: float, reply: Reply) -> None:
        self.statuses[status] += 1
        if status == 200 == expected:
            self.seconds.append(seconds)
        elif status == 503:
            self.refused.append(seconds)
            if "retry-after" not in reply.headers:
                self.lost.append("503 without Retry-After")
        elif status != expected:
            self.lost.append(f"{status}, not {expected}: {reply.body[:100]!r}")


Draw = Callable[[int], tuple[bytes, int]]  # number of a request -> its bytes, and the status it must get


async def load(server: Server, clients: int, seconds: float, draw: Draw) -> Load:
    """Let clients ask, each as soon as it has its answer; one that is refused waits about as long as it is told."""
    found, numbers, dice = Load(), itertools.count(), random.Random(0)
    end = time.monotonic() + seconds

    async def run() -> None:
        client = Client(server.port)
        while time.monotonic() < end:
            raw, expected = draw(next(numbers))
            started = time.monotonic()
            try:
                reply = await client.ask(raw, 30)
            except (OSError, EOFError, TimeoutError) as error:
                found.lost.append(repr(error))
                client.close()
                continue
            found.add(reply.status, expected, time.monotonic() - started, reply)
            if reply.status == 503:
                await asyncio.sleep(float(reply.headers.get("retry-after", 1)) * dice.uniform(0.5, 1.5))
        client.close()

    await asyncio.gather(*(run() for _ in range(clients)))
    return found


def good(number: int) -> tuple[bytes, int]:
    return predict(seed=number % REQUESTS), 200


def mixed(number: int) -> tuple[bytes, int]:
    """Return a good request, or with every tenth one that is malformed."""
    dice = random.Random(number)
    if dice.random() >= 0.1:
        return good(number)
    _, raw, status = dice.choice(table())
    return raw, status


def patient(number: int, root: Path) -> str:
    """V2."""
    server = served.start(root, **MODEL)
    try:
        asyncio.run(load(server, MANY, 2, mixed))  # what is set up at first use is set up
        before = server.memory()
        found = asyncio.run(load(server, MANY, SECONDS[number], mixed))
        grown = server.memory() - before
    finally:
        server.process.end()
    _say("V2", found, f"memory {grown / 1e6:+.1f} MB")
    if found.lost or found.refused:
        return f"{len(found.lost)} lost, {len(found.refused)} refused: {found.lost[:3]}"
    spread = found.quantile(0.99) / found.quantile(0.5)
    if number and spread > SPREAD:  # of the full case only: a few seconds beside other work have outliers
        return f"p99 is {spread:.1f} times p50"
    return f"{grown / 1e6:.0f} MB more" if grown > MEMORY else ""


def crowded(number: int, root: Path) -> str:
    """V3."""
    server = served.start(root, **MODEL)
    try:
        asyncio.run(load(server, FEW, 1, good))
        few = asyncio.run(load(server, FEW, CROWD_SECONDS[number], good))
        crowd = asyncio.run(load(server, CROWD, CROWD_SECONDS[number], good))
    finally:
        server.process.end()
    share = len(crowd.seconds) / len(few.seconds)
    _say("V3", few, f"{FEW} clients")
    _say("V3", crowd, f"{CROWD} clients, goodput {share:.0%}")
    if few.lost or crowd.lost or few.refused:
        return f"lost {[*few.lost, *crowd.lost][:3]}, refused {len(few.refused)} of {FEW} clients"
    if not crowd.refused:
        return f"{CROWD} clients and none refused"
    return f"goodput is {share:.0%} of that of {FEW} clients" if share < GOODPUT else ""


def ending(number: int, root: Path) -> str:
    """V7: SIGTERM or SIGINT while 64 requests are being answered; more may come until the end."""
    server = served.start(root, dim=64, depth=8, patch_size=1)
    try:
        return asyncio.run(_ending(server, random.Random(number), signal.SIGINT if number % 4 == 3 else signal.SIGTERM))
    finally:
        server.process.end()


async def _ending(server: Server, dice: random.Random, sent: signal.Signals) -> str:
    clients = [Client(server.port) for _ in range(MANY)]
    asking = [asyncio.create_task(client.ask(predict(seed=place % REQUESTS))) for place, client in enumerate(clients)]
    while server.metric("mixlab_in_flight") < MANY and not any(each.done() for each in asking):
        await asyncio.sleep(0.001)
    await asyncio.sleep(dice.uniform(0, 0.05))
    server.process.send(sent)
    found = await asyncio.gather(*asking, return_exceptions=True)
    for client in clients:
        client.close()
    wrong = [repr(each) for each in found if not isinstance(each, Reply) or each.status != 200]
    if wrong:
        return f"{sent.name}: {len(wrong)} of {MANY} without an answer: {wrong[0]}"
    if not await asyncio.to_thread(server.process.wait, 10):
        return f"{sent.name}: still there after 10 s"
    return "" if server.process.code == 0 else f"{sent.name}: exit code {server.process.code}"


def reloading(number: int, root: Path) -> str:
    """V8: two bundles in turn, every tenth time a damaged one, while 16 clients ask."""
    server = served.start(root)
    try:
        return asyncio.run(_reloading(server, RELOADS[number], root))
    finally:
        server.process.end()


async def _reloading(server: Server, reloads: int, root: Path) -> str:
    bundles = [served.write_model(root / f"model-{seed}", seed) for seed in range(2)]
    expected = {name: await _told(server, bundle) for name, bundle in zip("ab", bundles, strict=True)}
    raw, wrong, answers, done = predict(), [], Counter[str](), False

    async def ask() -> None:
        client = Client(server.port)
        while not done:
            try:
                reply = await client.ask(raw)
            except (OSError, EOFError, TimeoutError) as error:
                wrong.append(repr(error))
                client.close()
                continue
            digest = reply.json["model"]["digest"] if reply.status == 200 else ""
            answers[digest] += 1
            if reply.status != 200 or (digest, _share(reply)) not in expected.values():
                wrong.append(f"{reply.status} {reply.body[:200]!r}")
        client.close()

    asking = [asyncio.create_task(ask()) for _ in range(FEW)]
    failed = 0
    for reload in range(reloads):
        if reload % 10 == 9:
            (server.model / "model.safetensors").write_bytes(b"damaged")
            failed += 1
        else:
            _replace(server.model, bundles[reload % 2])
        await _reload(server)
    done = True
    await asyncio.gather(*asking)
    _say("V8", Load(), f"{reloads} reloads, {failed} of them damaged, answers by model {dict(answers)}")
    kept = server.metric('mixlab_reloads_total{result="failed"}')
    if wrong or kept != failed or len(answers) != 2:
        return (
            f"{len(wrong)} of {answers.total()} answers wrong: {wrong[:2]}; {kept:.0f} of {failed} damaged ones refused"
        )
    return ""


async def _told(server: Server, bundle: Path) -> tuple[str, float]:
    """Return the digest and the answer of a bundle, which is put into the server's place."""
    _replace(server.model, bundle)
    await _reload(server)
    client = Client(server.port)
    reply = await client.ask(predict())
    client.close()
    return reply.json["model"]["digest"], _share(reply)


def _share(reply: Reply) -> float:
    """Return the confidence, rounded: batches of other sizes sum in another order."""
    return round(reply.json["answers"][0]["confidence"], 4)


def _replace(place: Path, bundle: Path) -> None:
    shutil.rmtree(place)
    shutil.copytree(bundle, place)


async def _reload(server: Server) -> None:
    """Ask for a reload, and wait until it is done."""
    before = await asyncio.to_thread(_reloads, server)
    server.process.send(signal.SIGHUP)
    async with asyncio.timeout(30):
        while await asyncio.to_thread(_reloads, server) == before:
            await asyncio.sleep(0.02)


def _reloads(server: Server) -> float:
    return sum(server.metric(f'mixlab_reloads_total{{result="{result}"}}') for result in ("ok", "failed"))


def _say(name: str, found: Load, more: str) -> None:
    """Print what was seen, for `measure`."""
    if not measuring:
        return
    good, refused = found.seconds, found.refused
    line = f"{name}  {more}"
    if good:
        line += (
            f"; {len(good):,} answers, p50 {1000 * found.quantile(0.5):.0f} ms, p99 {1000 * found.quantile(0.99):.0f}"
        )
    if refused:
        shares = (found.quantile(share, "refused") * 1000 for share in (0.5, 0.99))
        within = sum(seconds <= REFUSED_SECONDS for seconds in refused) / len(refused)
        line += "; {:,} refused, p50 {:.1f} ms, p99 {:.1f}, {:.1%} within 20 ms".format(len(refused), *shares, within)
    print(f"{line}; {dict(sorted(found.statuses.items()))}", flush=True)


measuring = False


def measure(names: list[str]) -> None:
    """Run the full cases of these checks and print their figures."""
    global measuring
    measuring = True
    for check in CHECKS:
        if check.name in names:
            with tempfile.TemporaryDirectory(prefix="torture-") as folder:
                print(check.name, check.case(check.full - 1, Path(folder)) or "holds", flush=True)


CHECKS = [
    Check(
        name="V2",
        claim="64 keep-alive clients, a tenth malformed: no good request lost, no 5xx, p99 <= 3 x p50, +40 MB at most",
        case=patient,
        full=2,
        sample=1,
        others="LitServe loses 41 % of the good ones",
        alone=True,
    ),
    Check(
        name="V3",
        claim="of 256 clients as many are answered as 60 % of what 16 get; the rest 503 with Retry-After, none lost",
        case=crowded,
        full=2,
        sample=1,
        alone=True,
    ),
    Check(
        name="V7",
        claim="SIGTERM or SIGINT with 64 requests in flight: all are answered, and the exit code is 0",
        case=ending,
        full=20,
        sample=1,
    ),
    Check(
        name="V8",
        claim="100 reloads under load, a tenth of a damaged model: no answer lost, each of one model or of the other",
        case=reloading,
        full=2,
        sample=1,
    ),
]

if __name__ == "__main__":
    measure(sys.argv[1:])
