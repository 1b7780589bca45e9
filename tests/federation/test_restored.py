"""A database that is older than what the fleet has seen is found out, and nobody has to be told by hand."""

import shutil
from dataclasses import replace

from fd_runtime.storage.store import Store
from tests.federation.stage import DEVICES, SCENARIO, voices


def copy_database(source, target):
    """Copy a database with its write-ahead log; the server stands still."""
    target.mkdir(exist_ok=True)
    for path in source.glob("server.db*"):
        shutil.copy(path, target / path.name)


def restore(simulation, backup, folder):
    """What an operator does on a bad day: stop, copy the old files back, start."""
    simulation.server.crash()
    simulation.server.store.close()
    for path in folder.glob("server.db*"):
        path.unlink()
    copy_database(backup, folder)
    simulation.server.store = Store.open(folder / "server.db")
    simulation.server.start()


def test_a_server_restored_from_an_old_backup_begins_a_new_epoch_and_the_devices_go_on(stage, tmp_path):
    live, backup = tmp_path / "live", tmp_path / "backup"
    live.mkdir()
    simulation = stage.simulation(replace(SCENARIO, rounds=6), folder=live)
    rounds = simulation.run()
    next(rounds)
    copy_database(live, backup)
    accuracy_before = [next(rounds) for _ in range(2)][-1].clients
    old_epoch = simulation.server.aggregator.state.epoch

    restore(simulation, backup, live)
    later = list(simulation.run())

    state = simulation.server.aggregator.state
    assert state.epoch != old_epoch
    assert state.is_complete
    assert voices(simulation) == DEVICES
    assert {device.agent.state.offer.round.epoch for device in simulation.devices} == {state.epoch}
    assert later[-1].clients > accuracy_before


def test_a_backup_from_just_now_goes_on_in_the_same_epoch(stage, undisturbed, tmp_path):
    live, backup = tmp_path / "live", tmp_path / "backup"
    live.mkdir()
    simulation = stage.simulation(folder=live)
    rounds = simulation.run()
    first = next(rounds).consensus_sha256
    copy_database(live, backup)
    epoch = simulation.server.aggregator.state.epoch
    restore(simulation, backup, live)
    assert [first, *(result.consensus_sha256 for result in simulation.run())][-2:] == undisturbed[1:]
    assert simulation.server.aggregator.state.epoch == epoch
