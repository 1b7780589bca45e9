"""What `edge-agent flash` says and asks; `flashing` does it, for one card or for each row of a fleet's table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from getpass import getpass
from pathlib import Path

from edge_agent.flash import unpacking
from edge_agent.flash.boards import Board, BoardName
from edge_agent.flash.disks import check_may_be_written, look_at_disk
from edge_agent.flash.errors import OrderError, RefusedError
from edge_agent.flash.flashing import Made, Source, make_card, make_image, seed_mounted, source
from edge_agent.flash.fleet import Done, Log, read_fleet
from edge_agent.flash.jetson import files_of, is_tegra, look_at_tegra, put
from edge_agent.flash.manifest import SUFFIX, Entry, manifest
from edge_agent.flash.orders import TOKEN, Order, seed_of
from edge_agent.flash.progress import Bar
from edge_agent.flash.seed import Seed
from fd_runtime.files import write_atomically

_DONE_SUFFIX = ".done.csv"


@dataclass(frozen=True, slots=True)
class Result:
    """A card or an image that is made."""

    seed: Seed
    where: Path
    made: Made


def flash(arguments: argparse.Namespace) -> int:
    """Make what was asked for; the exit code is 0, or an error says why not."""
    target: Path = arguments.target
    common = order_of(arguments)
    orders = (common,) if arguments.fleet is None else read_fleet(arguments.fleet, common)
    if arguments.fleet is None and not common.device:
        raise OrderError("which device? --device ID, or --fleet FILE.csv for many")
    if not target.exists():
        raise FileNotFoundError(2, "no such image or folder", str(target))
    if is_tegra(target):
        results = _tegra(arguments, target, orders)
    elif common.onnxruntime is not None:
        raise OrderError("--onnxruntime: for a Jetson alone, that is for a folder Linux_for_Tegra")
    elif target.is_dir():
        results = list(_mounted_cards(arguments, target, orders))
    else:
        results = _from_image(arguments, target, orders)
    if arguments.json:
        print(json.dumps([_told(one) for one in results], indent=1))
    return 0


def order_of(arguments: argparse.Namespace) -> Order:
    """Return what the options say of a device.

    Raises:
        OrderError: the password of the network cannot be read.
    """
    password = ""
    if arguments.wifi_password_file is not None:
        source = arguments.wifi_password_file
        text = _typed_password() if str(source) == "-" else source.read_text(encoding="utf-8")
        password = text.splitlines()[0] if text else ""
        if not password:
            raise OrderError(f"{source}: its first line is the network's password, and empty")
    said = {
        name: getattr(arguments, name)
        for name in Order.__dataclass_fields__
        if getattr(arguments, name, None) is not None
    }
    return Order(**{**said, "wifi_password": password, "add": tuple(arguments.add)})


def _typed_password() -> str:
    return getpass("Password of the network: ") if sys.stdin.isatty() else sys.stdin.readline()


# From an image.


def _from_image(arguments: argparse.Namespace, image: Path, orders: tuple[Order, ...]) -> list[Result]:
    said = BoardName(arguments.board) if arguments.board else None
    work = _work_folder(arguments)
    with source(image, said, work, _watched) as ready:
        _tell_board(image, ready.board)
        seeds = [seed_of(order, ready.board) for order in orders]  # all of them, before the first is written
        for seed in seeds:
            _tell_seed(seed)
        if arguments.check:
            _say("nothing was written: --check")
            return []
        if arguments.to is not None:
            return list(_cards(arguments, ready, seeds))
        return _images(arguments, image, ready, seeds)


def _work_folder(arguments: argparse.Namespace) -> Path:
    """Return where the copy of a boot partition, and of an image that is packed, may lie for a while."""
    if arguments.check:
        return Path()
    if arguments.fleet is not None and arguments.to is None and arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        return Path(arguments.out)
    return Path(arguments.out).parent if arguments.out is not None else Path()


def _images(arguments: argparse.Namespace, image: Path, ready: Source, seeds: list[Seed]) -> list[Result]:
    """A file for each device, beside them the list that Imager reads."""
    names = [_image_path(arguments, image, seed) for seed in seeds]
    log = None if arguments.fleet is None else Log(arguments.out / f"{arguments.fleet.stem}{_DONE_SUFFIX}")
    done = frozenset() if log is None else log.devices()
    for seed, name in zip(seeds, names, strict=True):
        if name.exists() and seed.device not in done:
            raise FileExistsError(17, "exists already", str(name))
    is_fleet = arguments.fleet is not None
    manifest_path = arguments.out / f"{arguments.fleet.stem}{SUFFIX}" if is_fleet else names[0].with_suffix(SUFFIX)
    results: list[Result] = []
    for seed, name in zip(seeds, names, strict=True):
        if seed.device in done and name.exists():
            _say(f"{seed.device}: {name} is there already")
            continue
        results.append(Result(seed, name, make_image(ready, seed, name, _watched)))
        _write_manifest(manifest_path, results[-1], ready.board, is_kept=log is not None)
        if log is not None:  # last: what stands there is on the list too
            log.add([_done(results[-1])])
        _tell_made(results[-1])
    _say(f"for Imager  {manifest_path}")
    return results


def _image_path(arguments: argparse.Namespace, image: Path, seed: Seed) -> Path:
    name = f"{unpacking.stem(image)}-{seed.device}.img"
    if arguments.fleet is not None:
        if arguments.out is None:
            raise OrderError("--fleet: --out FOLDER for an image a device, --to DISK for one card after another")
        return Path(arguments.out) / name
    return Path(arguments.out) if arguments.out is not None else Path(name)


def _write_manifest(path: Path, result: Result, board: Board, *, is_kept: bool) -> None:
    """Put an image on the list that Imager reads; of a fleet, beside those that are there."""
    seed, made = result.seed, result.made
    entry = Entry(seed.device, seed.federation, seed.host, result.where, made.size, made.sha256)
    listed = json.loads(manifest([entry], board, _now().date()))
    if is_kept and path.exists():
        url = listed["os_list"][0]["url"]
        before = json.loads(path.read_text(encoding="utf-8"))["os_list"]
        listed["os_list"][:0] = [one for one in before if one["url"] != url]
    write_atomically(path, (json.dumps(listed, indent=1, ensure_ascii=False) + "\n").encode())


# Onto cards.


def _cards(arguments: argparse.Namespace, ready: Source, seeds: list[Seed]) -> Iterator[Result]:
    """One card after another in the same slot; whoever changes them is told whose is next, and whose that was."""
    log = None if arguments.fleet is None else Log(arguments.fleet.with_suffix(_DONE_SUFFIX))
    size = ready.image.stat().st_size
    for index, which in _left([seed.device for seed in seeds], log):
        seed = seeds[index]
        if arguments.fleet is not None and not _is_ready(f"Card for {seed.device} ({which}) into {arguments.to}"):
            continue
        disk = look_at_disk(arguments.to)
        check_may_be_written(disk, size, told_twice=arguments.overwrite)
        if arguments.fleet is None and not arguments.yes:
            _ask_to_overwrite(f"{disk.path}, {disk.size / 1e9:.1f} GB {disk.model}".rstrip(), seed.device)
        made = make_card(ready, seed, disk, _watched, told_twice=arguments.overwrite is not None)
        result = Result(seed, disk.path, made)
        if log is not None:
            log.add([_done(result)])
        _tell_made(result)
        _say(f"write {seed.device} on that card")
        yield result


def _mounted_cards(arguments: argparse.Namespace, folder: Path, orders: tuple[Order, ...]) -> Iterator[Result]:
    """The boot partition of a card that a desktop has mounted; of a fleet, one after another."""
    if arguments.to is not None or arguments.out is not None:
        raise OrderError(f"{folder} is a mounted card: it is written as it is, without --out and --to")
    said = BoardName(arguments.board) if arguments.board else None
    log = None if arguments.fleet is None else Log(arguments.fleet.with_suffix(_DONE_SUFFIX))
    for index, which in _left([order.device for order in orders], log):
        order = orders[index]
        if arguments.fleet is not None and not _is_ready(f"Card for {order.device} ({which}), mounted at {folder}"):
            continue
        board, seed, made = seed_mounted(folder, said, partial(seed_of, order))
        _tell_board(folder, board)
        _tell_seed(seed)
        result = Result(seed, folder, made)
        if log is not None:
            log.add([_done(result)])
        _tell_made(result)
        _say("unmount it before you take it out")
        yield result


def _left(devices: list[str], log: Log | None) -> Iterator[tuple[int, str]]:
    """Yield the place of each device that is left of a fleet, and `2 of 100`."""
    done = frozenset() if log is None else log.devices()
    for index, device in enumerate(devices):
        if device in done:
            _say(f"{device}: done before")
        else:
            yield index, f"{index + 1} of {len(devices)}"


# A Jetson's root file system.


def _tegra(arguments: argparse.Namespace, folder: Path, orders: tuple[Order, ...]) -> list[Result]:
    if arguments.to is not None or arguments.out is not None or arguments.fleet is not None:
        raise OrderError(
            f"{folder} is one root file system, for one device, and written where it lies: no --out, --to, --fleet"
        )
    board = look_at_tegra(folder, BoardName(arguments.board) if arguments.board else None)
    _tell_board(folder, board)
    (order,) = orders
    seed, root = seed_of(order, board), folder / "rootfs"
    _tell_seed(seed)
    hosts = root / "etc/hosts"
    files = files_of(seed, board, hosts.read_text(encoding="utf-8") if hosts.is_file() else "", order.onnxruntime)
    if arguments.check:
        _say("nothing was written: --check")
        return []
    result = Result(seed, root, Made(put(root, files), "", len(files), 0))
    _tell_made(result)
    _say("then: sudo ./tools/kernel_flash/l4t_initrd_flash.sh ... as NVIDIA says for your board")
    return [result]


# Words.


def _is_ready(question: str) -> bool:
    """Ask for the next card; say no to skip it.

    Raises:
        RefusedError: nobody is there, or they have had enough.
    """
    if not sys.stdin.isatty():
        raise RefusedError("cards are changed by hand: nobody is there to ask")
    print(f"{question}: Enter writes it, s skips it, q ends: ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer or answer.strip() == "q":
        raise RefusedError("ended; what is done is on record, the same command goes on")
    return answer.strip() != "s"


def _ask_to_overwrite(disk: str, device: str) -> None:
    if not sys.stdin.isatty():
        raise RefusedError("say --yes: nobody is there to ask")
    print(f"Everything on {disk} will be gone. Type the device's name to go on: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != device:
        raise RefusedError("nothing was written")


def _tell_board(image: Path, board: Board) -> None:
    python = f"Python {board.python}, " if board.python else ""
    _say(f"{image.name}: {board.name.value} ({board.system}, {python}{board.architecture}) by {board.mechanism.value}")


def _tell_seed(seed: Seed) -> None:
    way = f"WiFi {seed.wifi.ssid}" if seed.wifi else "cable"
    ssh = f"SSH as {seed.login.user}" if seed.login.keys else "no SSH"
    _say(f"{seed.device} in {seed.federation}: host {seed.host}, {way}, {ssh}, {_proof(seed)}")
    bundle = "" if any(name.startswith("bundle/") for name in seed.etc) else "; no model: --bundle FOLDER"
    _say(f"{seed.package.path.name}, {len(seed.etc)} files for /etc/fedistill{bundle}")


def _proof(seed: Seed) -> str:
    if TOKEN in seed.etc:
        return "token"
    return "certificate" if f"{seed.device}.pem" in seed.etc else "neither certificate nor token"


def _tell_made(result: Result) -> None:
    made = result.made
    whole = f", every byte of {made.size / 1e9:.2f} GB, sha256 {made.sha256[:16]}" if made.sha256 else ""
    kept = f", {made.kept} as they were" if made.kept else ""
    _say(f"{result.where}: verified: {made.written} files written{kept}{whole}")


def _told(result: Result) -> dict[str, object]:
    return {
        "device": result.seed.device,
        "federation": result.seed.federation,
        "host": result.seed.host,
        "where": str(result.where),
        "bytes": result.made.size,
        "sha256": result.made.sha256,
        "files_written": result.made.written,
        "files_kept": result.made.kept,
    }


def _done(result: Result) -> Done:
    made = result.made
    return Done(result.seed.device, result.seed.host, str(result.where), made.size, made.sha256, _now())


def _watched(step: str, total: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    return Bar(step, total).over(chunks)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
