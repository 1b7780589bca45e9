"""The ledger: durable before it matters, whole or refused, and never forgetful."""

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edge_agent.privacy.facts import facts
from edge_agent.privacy.ledger import ABANDONED, Charge, Ledger, LedgerError, spent_epsilon
from edge_agent.privacy.limits import charge_for
from edge_agent.privacy.settings import PrivacySettings
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.terms import PrivacyTerms

TERMS = PrivacyTerms(epsilon=2.0, steps=20)
BUNDLE, OTHER_BUNDLE = sha256(b"bundle").hex(), sha256(b"other bundle").hex()
THETA = sha256(b"theta")
NOW = 1_800_000_000
DAY = 86_400


def charge(at_s=NOW, terms=TERMS, bundle=BUNDLE):
    return Charge(at_s, bundle, terms, 3.0)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "privacy")


def lines(ledger):
    return ledger._path.read_bytes().splitlines()


def test_there_is_nothing_before_the_first_charge(ledger):
    assert ledger.entries() == ()
    assert not ledger._folder.exists()


def test_a_charge_is_found_again_by_another_process_with_its_key(ledger):
    entry = ledger.charge(charge())
    again = Ledger(ledger._folder)
    assert again.entries() == (entry,)
    assert entry.is_open
    assert (entry.charge.terms, entry.charge.noise_multiplier, entry.charge.at_s) == (TERMS, 3.0, NOW)
    assert sha256(again.key(entry)).hex() == entry.charge.key_sha256


def test_every_charge_has_a_key_of_its_own_and_nobody_else_can_read_it(ledger):
    keys = set()
    for _ in range(3):
        entry = ledger.charge(charge())
        keys.add(ledger.key(entry))
        ledger.close_charge(entry, BUNDLE, THETA)
    assert len(keys) == 3
    assert all(len(key) == 32 for key in keys)
    entry = ledger.charge(charge())
    assert (ledger._folder.stat().st_mode & 0o777, ledger._key_path.stat().st_mode & 0o777) == (0o700, 0o600)
    assert ledger._path.stat().st_mode & 0o077 == 0
    assert ledger.key(entry).hex() not in ledger._path.read_text()


def test_a_training_that_is_over_has_no_key_any_more(ledger):
    entry = ledger.charge(charge())
    ledger.close_charge(entry, BUNDLE, THETA)
    (closed,) = ledger.entries()
    assert (closed.is_open, closed.theta_sha256, closed.trained_bundle) == (False, THETA.hex(), BUNDLE)
    assert closed.charge == entry.charge
    with pytest.raises(LedgerError, match="key"):
        ledger.key(entry)


def test_nothing_that_a_power_cut_left_of_its_key_outlives_a_training(ledger, monkeypatch):
    entry = ledger.charge(charge())
    with monkeypatch.context() as cut:
        cut.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(SystemExit))
        cut.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            ledger.key(entry)
    assert len(list(ledger._folder.iterdir())) == 3
    ledger.close_charge(entry, BUNDLE, THETA)
    assert list(ledger._folder.iterdir()) == [ledger._path]


def test_a_charge_that_is_closed_without_its_key_clears_what_is_left_of_it(ledger):
    entry = ledger.charge(charge())
    ledger._key_path.rename(ledger._folder / ".noise.key.a1b2c3d4")
    ledger.abandon(entry)
    assert list(ledger._folder.iterdir()) == [ledger._path]


def test_closing_again_changes_nothing(ledger):
    entry = ledger.charge(charge())
    ledger.close_charge(entry, BUNDLE, THETA)
    before = lines(ledger)
    ledger.close_charge(entry, BUNDLE, sha256(b"other"))
    assert lines(ledger) == before


def test_an_abandoned_charge_still_counts(ledger):
    ledger.abandon(ledger.charge(charge()))
    (entry,) = ledger.entries()
    assert (entry.is_open, entry.theta_sha256) == (False, ABANDONED)
    assert spent_epsilon([each.charge for each in ledger.entries()], 1e-5) > 0


def test_there_is_one_open_charge_at_most(ledger):
    ledger.charge(charge())
    with pytest.raises(InvalidValueError, match="not over"):
        ledger.charge(charge())
    assert len(ledger.entries()) == 1


def test_costs_add_up_as_the_accountant_says(ledger):
    made = charge_for(PrivacyTerms(epsilon=2.0, steps=20), BUNDLE, NOW)
    one, two = spent_epsilon([made], 1e-5), spent_epsilon([made, made], 1e-5)
    assert one == pytest.approx(2.0, abs=1e-3)
    assert 2.0 < two < 4.0, "two trainings cost more than one, and less than twice as much"


# Damage.


@pytest.fixture
def written(ledger):
    for at_s in (NOW, NOW + DAY):
        ledger.close_charge(ledger.charge(charge(at_s)), BUNDLE, THETA)
    return ledger


@pytest.mark.parametrize("line", range(4))
def test_a_line_that_was_changed_is_noticed(written, line):
    rows = lines(written)
    row = json.loads(rows[line])
    row["at_s" if "at_s" in row else "theta_sha256"] = 1 if "at_s" in row else "00" * 32
    rows[line] = json.dumps(row, sort_keys=True, separators=(",", ":")).encode()
    written._path.write_bytes(b"\n".join(rows) + b"\n")
    with pytest.raises(LedgerError):
        written.entries()


@pytest.mark.parametrize("line", range(3))
def test_a_line_that_was_taken_out_is_noticed(written, line):
    rows = lines(written)
    del rows[line]
    written._path.write_bytes(b"\n".join(rows) + b"\n")
    with pytest.raises(LedgerError):
        written.entries()


def test_lines_that_were_swapped_are_noticed(written):
    rows = lines(written)
    rows[0], rows[2] = rows[2], rows[0]
    written._path.write_bytes(b"\n".join(rows) + b"\n")
    with pytest.raises(LedgerError):
        written.entries()


@pytest.mark.parametrize("garbage", [b"{}\n", b"[]\n", b"nonsense\n", b"\xff\xfe\n", b"\n", b'{"kind":"gift"}\n'])
def test_a_line_of_something_else_is_noticed(written, garbage):
    written._path.write_bytes(written._path.read_bytes() + garbage)
    with pytest.raises(LedgerError):
        written.entries()
    with pytest.raises(LedgerError):
        written.charge(charge())


def test_a_line_that_was_torn_off_was_never_charged(written):
    entries = written.entries()
    whole = written._path.read_bytes()
    for cut in (1, 20, 100):
        written._path.write_bytes(whole + lines(written)[0][:cut])
        assert written.entries() == entries
        written.charge(charge(NOW + 2 * DAY))
        assert len(written.entries()) == 3
        written._path.write_bytes(whole)


def test_weights_that_name_a_charge_of_a_ledger_put_back_are_noticed(written):
    old = written._path.read_bytes()
    entry = written.charge(charge(NOW + 2 * DAY))
    assert written.charge_of(entry.digest) == entry
    written._path.write_bytes(old)
    with pytest.raises(LedgerError, match="does not have"):
        written.charge_of(entry.digest)


def test_an_open_charge_without_its_key_is_an_error(ledger):
    entry = ledger.charge(charge())
    for spoil in (lambda: ledger._key_path.write_bytes(bytes(32)), ledger._key_path.unlink):
        spoil()
        with pytest.raises(LedgerError, match="key"):
            ledger.key(entry)


# The disk.


@pytest.mark.parametrize("room", [0, 10, 100, 300])
def test_a_charge_that_the_disk_does_not_take_is_none(written, room):
    """RLIMIT_FSIZE: a write that goes past it fails as on a full disk."""
    entries, size = written.entries(), written._path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, hard))
        with pytest.raises(OSError, match="too large"):
            written.charge(charge(NOW + 2 * DAY))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert written.entries() == entries
    assert written.charge(charge(NOW + 2 * DAY)) == written.entries()[-1]


CHARGE_AND_DIE = """
    import os, signal, sys
    from pathlib import Path
    from edge_agent.privacy import ledger as module
    from tests.edge_agent.privacy.test_ledger import charge
    calls, die_at = 0, int(sys.argv[2])
    for name in ("write", "fsync", "ftruncate", "replace"):
        def counted(*arguments, real=getattr(os, name), **options):
            global calls
            calls += 1
            if calls == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        setattr(os, name, counted)
    module.Ledger(Path(sys.argv[1])).charge(charge())
    print(calls)
"""


def test_a_process_killed_at_any_call_has_charged_wholly_or_not_at_all(tmp_path):
    def run(folder, die_at):
        command = [sys.executable, "-c", textwrap.dedent(CHARGE_AND_DIE), str(folder), str(die_at)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))

    done = run(tmp_path / "whole", 0)
    assert done.returncode == 0, done.stderr
    calls = int(done.stdout)
    assert calls >= 4
    outcomes = set()
    for die_at in range(1, calls + 1):
        folder = tmp_path / f"killed-{die_at}"
        assert run(folder, die_at).returncode == -signal.SIGKILL
        ledger = Ledger(folder)
        outcomes.add(len(ledger.entries()))
        entry = ledger.entries()[0] if ledger.entries() else ledger.charge(charge())
        assert len(ledger.key(entry)) == 32
        assert len(ledger.entries()) == 1
    assert outcomes == {0, 1}


# What the owner sees.


def test_facts_tell_terms_spending_and_when_the_next_period_begins(ledger):
    own = PrivacySettings(epsilon_max=5.0, period_days=10)
    assert facts(ledger._folder, own, lambda: NOW)["next_period"] == "now"
    for at_s in (NOW - 20 * DAY, NOW - DAY):
        ledger.close_charge(ledger.charge(charge_for(TERMS, BUNDLE, at_s)), BUNDLE, THETA)
    ledger.charge(charge_for(TERMS, OTHER_BUNDLE, NOW))
    told = facts(ledger._folder, own, lambda: NOW)
    assert 2.0 < told["spent_in_period"] < 4.0
    assert told["left_in_period"] == pytest.approx(5.0 - told["spent_in_period"])
    assert told["spent_ever"] > told["spent_in_period"]
    assert told["next_period"] == "2027-01-25T08:00:00Z"
    assert [training["state"] for training in told["trainings"]] == ["done", "done", "charged, not over"]
    assert json.dumps(told)
