"""What a store survives as it is set up, and what is wrong with its settings."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lifelong.errors import require
from lifelong.online.store.folder import read_head
from lifelong.online.store.opening import folder_of, open_store
from lifelong.online.store.redis_address import SCHEMES, Address, parse
from lifelong.online.store.redis_client import connect, disconnect, translated
from lifelong.online.store.sharded import ShardedStore

logger: logging.Logger = logging.getLogger(__name__)

EVENTS = (
    "kill of a process that writes",
    "kill of the server",
    "crash of the system or loss of power",
    "failover to a replica",
)
"""What can happen to a store."""
_ALL, _NOTHING, _SECOND, _NONE = (
    "nothing is lost",
    "everything is lost",
    "the last second or so is lost",
    "there is none",
)
_SNAPSHOT = "what came after the last snapshot is lost"
_LATE = "what had not reached the replica is lost"
_CHOSEN = "nothing is lost where a replica takes over that has everything"
_SLOW = "nothing is lost, or the last two seconds if its disk is slow"
_FREE = 0.05
"""Share of a disk or of a server's memory that should be free."""
_IN_RAM = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Checkup:
    """What a store survives, and why.

    Args:
        survives: each of `EVENTS` -> what becomes of acknowledged commits.
        facts: the settings that this follows from.
        problems: what should be changed, each with what to do.
    """

    survives: Mapping[str, str]
    facts: Mapping[str, str]
    problems: list[str] = field(default_factory=list)


def check_store(url: str) -> Checkup:
    """Look at a store; nothing is written, and a process that owns it is not disturbed.

    Args:
        url: see `lifelong.online.store.opening.open_store`.

    Raises:
        UsageError: the URL names no kind of store.
        StoreError: it cannot be reached or read.
    """
    if url.partition("://")[0] in SCHEMES:
        return _check_server(url)
    with closing(open_store(url, read_only=True)) as store:
        identity = store.artifact_list().identity
    if url.startswith("memory:"):
        return Checkup(_outcomes(_NOTHING, _NONE, _NOTHING), {})
    folder, shards = folder_of(url).path, store.share.of if isinstance(store, ShardedStore) else 1
    kind, free = _file_system(folder), shutil.disk_usage(folder).free / shutil.disk_usage(folder).total
    facts = {
        "artifact": "none yet" if identity is None else identity.artifact_id[:12],
        "format": str((read_head(folder) or {}).get("version")),
        "file system": kind or "unknown",
        "free space": f"{free:.0%}",
        "fsync": "each commit",
        **({"shards": str(shards)} if shards > 1 else {}),
    }
    problems = []
    if kind in _IN_RAM:
        problems.append(f"{folder} is on {kind}, which is RAM: put it on a disk")
    if free < _FREE:
        problems.append(f"the disk of {folder} is {1 - free:.0%} full; a full disk refuses writes: free space")
    return Checkup(_outcomes(_ALL, _NONE, _NOTHING if kind in _IN_RAM else _ALL), facts, problems)


def _outcomes(process: str, server: str, power: str, failover: str = _NONE) -> dict[str, str]:
    return dict(zip(EVENTS, (process, server, power, failover), strict=True))


def _file_system(path: Path) -> str | None:
    """Kind of the file system that holds a path."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return None
    rows = [line.split(" ")[1:3] for line in mounts.read_text().splitlines()]
    # A later mount lies over an earlier one of the same place.
    mounted = [
        (len(place), order, kind) for order, (place, kind) in enumerate(rows) if path.resolve().is_relative_to(place)
    ]
    return max(mounted)[2] if mounted else None


def _check_server(url: str) -> Checkup:
    address = parse(url)
    client = connect(address)
    try:
        with translated(address.name):
            if not address.cluster:
                return _of_node(address, address.name, _info(client), _settings(client))
            nodes = [
                _of_node(address, node.name, _info(node.redis_connection), _settings(node.redis_connection))
                for node in client.get_primaries()
            ]
    finally:
        disconnect(client)
    worst = {event: max((part.survives[event] for part in nodes), key=_ORDER.index) for event in EVENTS}
    facts = {
        f"{name} of server {number}": value for number, part in enumerate(nodes) for name, value in part.facts.items()
    }
    problems = [problem for part in nodes for problem in part.problems]
    if worst[EVENTS[3]] == _LATE:
        problems.append(
            "a failover that loses commits of one server of a cluster leaves positions on the others: let commits wait"
            " for replicas (?replicas=1), or read the source again into a new store after such a failover"
        )
    return Checkup(worst, facts, problems)


_ORDER = (_NONE, _ALL, _CHOSEN, _SLOW, _SECOND, _LATE, _SNAPSHOT, _NOTHING)
"""From best to worst."""


def _info(client: Any) -> dict[str, Any]:
    return {
        name: value for part in ("persistence", "memory", "replication") for name, value in client.info(part).items()
    }


def _settings(client: Any) -> dict[str, str] | None:
    """What `CONFIG GET` says; None where it is forbidden, as by some providers."""
    names = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "save", "min-replicas-to-write")
    redis = require("redis", extra="redis", purpose="a redis:// store")
    try:
        values = {name: client.config_get(name).get(name) for name in names}
    except redis.ResponseError as error:
        logger.debug("CONFIG GET is refused: %s", error)
        return None
    return {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in values.items()}


def _of_node(address: Address, name: str, info: Mapping[str, Any], settings: Mapping[str, str] | None) -> Checkup:
    """The checkup of one server."""
    config = settings or {}
    log, sync, snapshots = bool(info.get("aof_enabled")), config.get("appendfsync"), config.get("save")
    replicas, policy = int(info.get("connected_slaves", 0)), str(info.get("maxmemory_policy", "noeviction"))
    facts = {
        "appendonly": "yes" if log else "no",
        "appendfsync": sync or "not known: CONFIG is forbidden",
        "save": repr(snapshots) if settings else "not known: CONFIG is forbidden",
        "maxmemory-policy": policy,
        "role": str(info.get("role")),
        "replicas": str(replicas),
        "a commit waits for": _waited(address),
        **_failovers(address, replicas),
    }
    without_log = _SNAPSHOT if snapshots else _NOTHING
    power = _ALL if log and sync == "always" else _SECOND if log and sync == "everysec" else without_log
    if log and sync in ("no", None):
        power = _SNAPSHOT
    # With everysec, the default, a server answers before it writes its log while an earlier sync of it takes its time.
    killed = without_log if not log else _ALL if sync in ("always", "no") else _SLOW
    survives = _outcomes(_ALL, killed, power, _failover(address.replicas, replicas))
    problems = list(_problems(name, info, config, log=log, policy=policy))
    return Checkup(survives, facts, problems + list(_replica_problems(address, name, info, config)))


def _waited(address: Address) -> str:
    """What a commit waits for that the URL asks for."""
    disk = "the disk" if address.fsync else ""
    some = f"{address.replicas} replica{'s' if address.replicas > 1 else ''}" if address.replicas else ""
    return " of the primary and of ".join(filter(None, (disk, some))) or "no replica"


def _failover(wanted: int, replicas: int) -> str:
    """What is lost where commits wait for some of the replicas."""
    if not replicas:
        return _NONE
    return _LATE if not wanted else _ALL if wanted >= replicas else _CHOSEN


def _failovers(address: Address, replicas: int) -> dict[str, str]:
    """What a failover loses with the option and without it."""
    if not replicas:
        return {}
    asked = sorted({0, 1, replicas, address.replicas})
    return {f"a failover with ?replicas={wanted}": _failover(wanted, replicas) for wanted in asked}


def _problems(name: str, info: Mapping[str, Any], known: Mapping[str, str], *, log: bool, policy: str) -> Iterator[str]:
    """What should be changed about the server's memory and disk."""
    most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if policy != "noeviction":
        yield f"{name} throws keys away when it is full (maxmemory-policy {policy}): set noeviction"
    if most and used > (1 - _FREE) * most:
        yield f"{name} uses {used / most:.0%} of its maxmemory; a full server refuses writes: raise it"
    if not log:
        yield f"{name} keeps no log (appendonly no): a stop of the server loses commits; set appendonly yes"
    if log and known.get("appendfsync") == "no":
        yield f"{name} leaves it to the system when its log reaches the disk (appendfsync no): set always or everysec"
    if log and known.get("no-appendfsync-on-rewrite") == "yes":
        yield f"{name} syncs nothing while it rewrites its log: set no-appendfsync-on-rewrite no"
    if log and info.get("aof_last_write_status", "ok") != "ok":
        yield f"{name} could not write its log last time: look at its disk"
    if not log and info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield f"{name} could not write its last snapshot: look at its disk"


def _replica_problems(address: Address, name: str, info: Mapping[str, Any], known: Mapping[str, str]) -> Iterator[str]:
    """What should be changed about the server's replicas."""
    replicas = int(info.get("connected_slaves", 0))
    if info.get("role") == "slave":
        yield f"{name} is a replica, which takes no writes: name its primary"
    elif address.replicas > replicas:
        yield (
            f"{name} has {replicas} of the {address.replicas} replicas that a commit waits for, and acknowledges none:"
            " start more, or set ?replicas= lower"
        )
    elif replicas and not address.replicas and known.get("min-replicas-to-write", "0") == "0":
        yield (
            f"{name} acknowledges writes that no replica has: put ?replicas=1 into the URL, so that a commit waits for"
            " one; or set min-replicas-to-write 1, so that it stops when it is alone, and a failover loses the last"
            " moments only"
        )
    if address.fsync and not info.get("aof_enabled"):
        yield f"{name} keeps no log to wait for, as fsync=true wants it: set appendonly yes"
    elif address.fsync and known.get("appendfsync", "always") != "always":
        yield f"{name} may say too early that a write is on its disk: with fsync=true set appendfsync always"


def describe(checkup: Checkup) -> list[str]:
    """A checkup in words, a line each."""
    lines = [f"After a {event}: {outcome}" for event, outcome in checkup.survives.items() if outcome != _NONE]
    lines += [f"{name}: {value}" for name, value in checkup.facts.items()]
    return lines + [f"To do: {problem}" for problem in checkup.problems]
