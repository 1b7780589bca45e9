"""What an operator reads: the truth of the database in words, whatever the federation has come to."""

import re
from dataclasses import replace

import numpy as np
import pytest
from starlette.testclient import TestClient

from broker_server.core.events import DEVICE_COMMAND, Ordered, Release, ReleaseMade
from broker_server.dashboard.app import PAGES, Site, make_app
from broker_server.dashboard.expiry import Expiry
from broker_server.dashboard.pages import history
from broker_server.dashboard.reading import ModelSize
from broker_server.orders import new_order, place_order
from broker_server.settings import RoundSettings
from fd_protocol import codec
from fd_protocol.competence import FAR
from fd_protocol.identity import RoundId, sha256
from fd_protocol.messages import Command, CommandState, DeviceState, RoundReport
from fd_runtime.starting import exclusive
from fd_runtime.storage.store import RECORDS, Store
from tests.broker_server.builders import TASK
from tests.broker_server.core.test_editions import BOTH, OLD_CANARIES, make_kit
from tests.broker_server.core.test_editions import stage as stage_order
from tests.broker_server.dashboard.stage import Stage, form_of
from tests.broker_server.test_publishing import order as published
from tests.broker_server.world import TOPICS, fleet

ADDRESSES = [address for address, _ in PAGES]


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


@pytest.fixture
def played(stage):
    return stage.play()


def page(stage, address):
    answer = stage.browser().get(address)
    assert answer.status_code == 200, answer.text
    return answer.text


def words(stage, address):
    """What a reader sees of a page, as one line."""
    text = re.sub(r"<[^>]+>", " ", page(stage, address).split("<main")[1])
    return re.sub(r"\s+", " ", text.replace("\N{NO-BREAK SPACE}", " "))


def all_addresses(stage):
    epoch = f"{stage.world.state.epoch:016x}"
    return [*ADDRESSES, "/fleet/a", f"/rounds/{epoch}/1", f"/rounds/{epoch}/3", f"/rounds/{epoch}/4", "/login"]


def test_every_page_stands_before_the_first_round(stage):
    for address in ADDRESSES:
        assert "<h1>" in page(stage, address)
    assert "No round yet" in page(stage, "/")
    assert "Waiting for 3 devices to come online." in page(stage, "/")
    assert "No device yet" in page(stage, "/fleet")


def test_every_page_stands_where_the_server_has_never_run(stage):
    source = replace(stage.source, database=stage.folder / "none.db")
    with source.look() as look:
        assert look.state.number == 0
        assert look.chronicle.devices() == ()
        assert look.database_bytes == 0


def test_a_database_without_records_is_an_empty_history(stage, tmp_path):
    old = tmp_path / "old.db"
    Store.open(old).close()
    with replace(stage.source, database=old).look() as look:
        assert look.store.version < RECORDS
        assert look.chronicle.rounds() == ()


def test_the_first_page_counts_who_is_awaited_once_some_are_online(stage):
    stage.world.device("a")
    assert "Waiting for 2 more devices to come online." in page(stage, "/")


def test_the_open_round_tells_who_has_answered_and_who_was_refused(played):
    told = words(played, "/")
    assert "Round 4: taking contributions" in told
    assert "1 of 3 invited devices have answered; the quorum is 2." in told
    assert "arrived 1 · ○ awaited 2 · ■ refused 1" in told


def test_a_round_without_quorum_is_told_in_words(tmp_path):
    stage = Stage(tmp_path)
    fleet(stage.world)[0].contribute()
    stage.world.wait(61)
    assert "too few devices answered: 1 of the 2 that are needed" in words(stage, "/")
    assert "Round 1 came to nothing: quorum missed." in words(stage, "/")


def test_a_pause_is_told_on_the_first_page(played):
    place_order(played.spool, new_order("pause", who="ada", at_ms=played.world.now_ms))
    played.world.settle()
    assert "Rounds are paused." in words(played, "/")


def test_an_expiring_certificate_is_told_before_it_expires(tmp_path):
    soon = Expiry("aggregator", "certificate of this server", 1_000_000 + 5 * 86_400_000, "CertificateExpires")
    stage = Stage(tmp_path, expiries=[soon, replace(soon, what="list", until_ms=1), replace(soon, until_ms=1 << 44)])
    told = words(stage, "/")
    assert "The certificate of this server expires in 5 d." in told
    assert "The list has expired." in told
    assert told.count("expire") == 2


def test_without_canaries_no_accuracy_is_claimed(tmp_path):
    stage = Stage(tmp_path, canaries=False).play()
    assert "no canaries: nobody can say how right" in words(stage, "/")
    assert "Unverified." not in words(stage, "/releases")  # no student learns here
    assert "Nothing to show yet." in words(stage, "/history").split("Agreement")[0]


def test_the_fleet_shows_each_device_with_its_standing(played):
    told = words(played, "/fleet")
    assert "3 of 3 devices online" in told
    with played.source.look() as look:
        trust = look.chronicle.device("a").trust
    assert f"{trust:.2f}" in told


def test_the_fleet_is_searched_and_ordered_and_cut_into_screens(stage):
    for number in range(230):
        stage.world.device(f"press-{number:03}", family="mlp-s" if number % 2 else "cnn-m", runtime="litert")
    assert "Page 1 of 3" in words(stage, "/fleet")
    assert "press-229" in words(stage, "/fleet?page=3")
    assert "press-229" in words(stage, "/fleet?page=99")
    assert page(stage, "/fleet").count('<th scope="row">') == 100
    assert page(stage, "/fleet?q=press-00").count('<th scope="row">') == 10
    assert "No device fits" in words(stage, "/fleet?q=oven")
    for order in ("seen", "trust", "agreement", "gain", "refused", "nonsense"):
        assert "press-" in words(stage, f"/fleet?order={order}")


def test_what_a_device_says_of_itself_is_text_and_never_markup(stage):
    state = DeviceState(1, online=True, task=TASK, problem="<script>alert(1)</script>", runtime="<b>", agent='"><i>')
    stage.world.arrive(TOPICS.state("evil"), codec.encode(state))
    stage.world.settle()
    for address in ("/", "/fleet", "/fleet/evil", "/fleet?q=%3Cscript%3E"):
        text = page(stage, address)
        assert "<script>alert" not in text
        assert "<b>" not in text.split("<main")[1].replace("<b>0</b>", "")
        assert '"><i>' not in text


def test_refusals_are_listed_with_their_reason_and_its_meaning(played):
    told = words(played, "/refusals")
    assert "wrong_temperature" in told
    assert "malformed" in told
    assert "fd/v1/demo/dev/c/up/0" in told


@pytest.mark.parametrize("shares", [(1.2, 0.5), (-1.0, 0.5), (1.7e308, -1.7e308), (1.7e308, 1.7e308)])
def test_no_report_of_a_device_keeps_a_page_from_others(played, shares):
    first = RoundId("demo", played.world.state.epoch, 1)
    for name, share in zip("ab", shares, strict=True):
        report = RoundReport(first, sha256(b"z"), accepted=True, metrics={"hold_out_accuracy": share})
        played.world.arrive(TOPICS.report(name), codec.encode(report))
    played.world.settle()
    for address in all_addresses(played):
        page(played, address)


def test_the_history_tells_bytes_against_the_budget_and_against_fedavg(played):
    told = words(played, "/history")
    assert "Used of the budget of 1.0 MB" in told
    assert "FedAvg, what devices train" in told
    assert "44,000" in told


def test_the_picture_of_disagreement_names_devices_and_classes(stage):
    a, b, c = fleet(stage.world)
    _, codes = a.contribute()
    b.contribute(probabilities=codes.probabilities())
    c.contribute(probabilities=codes.probabilities()[:, [1, 2, 0]])
    told = words(stage, "/differing")
    assert "round 1, 20 probes" in told
    picture = page(stage, "/differing")
    assert picture.index(">c</text>") < picture.index(">a</text>")  # who differs most stands first
    assert all(name in told for name in ("cat", "dog", "owl"))


def test_what_a_large_fleet_said_in_a_round_is_told_page_by_page(played, monkeypatch):
    address = f"/rounds/{played.world.state.epoch:016x}/1"  # three devices said one thing each
    told, pages = [], 0
    monkeypatch.setattr(history, "SHOWN_HEARINGS", 2)
    while address:
        html = page(played, address)
        rows = re.findall(r'<tr><th scope="row"><a href="/fleet/(\w)"', html)
        assert len(rows) <= 2
        told, pages = [*told, *rows], pages + 1
        further = re.search(r'class="button" href="([^"]*\?after=[^"]*)"', html)
        address = further and further[1]
    with played.source.look() as look:
        assert told == [one.device for one in look.chronicle.hearings(played.world.state.epoch, 1)]
    assert pages > 1


def test_a_device_that_fills_a_page_does_not_hide_those_after_it(played, monkeypatch):
    address = f"/rounds/{played.world.state.epoch:016x}/4"
    monkeypatch.setattr(history, "SHOWN_HEARINGS", 1)
    seen, after = set(), ""
    while after is not None:
        html = page(played, f"{address}?after={after}")
        seen |= set(re.findall(r'<tr><th scope="row"><a href="/fleet/(\w)"', html))
        further = re.search(r'class="button" href="[^"]*\?after=(\w+)"', html)
        after = further and further[1]
    with played.source.look() as look:
        assert seen == {one.device for one in look.chronicle.hearings(played.world.state.epoch, 4)}


def test_there_is_no_picture_before_a_consensus(stage):
    assert "No consensus to compare with yet" in words(stage, "/differing")


def test_a_device_and_a_round_that_nobody_knows_are_not_found(played):
    browser = played.browser()
    for address in ("/fleet/nobody", "/rounds/0000000000000001/1", "/rounds/rubbish/1", "/nothing"):
        answer = browser.get(address)
        assert answer.status_code == 404
        assert "Not possible" in answer.text


def test_commands_are_told_with_who_gave_them_and_what_came_of_it(played):
    place_order(played.spool, new_order("abort", who="ada", at_ms=played.world.now_ms, arguments={"reason": "fire"}))
    played.world.settle()
    told = words(played, "/audit")
    assert "ada operator abort reason: fire round 4 aborted" in told


def test_every_chart_has_the_table_behind_it(played):
    for address in ("/history", "/differing", "/fleet/a"):
        text = page(played, address)
        pictures = text.count('<div class="picture">')
        assert pictures
        assert text.count("<summary") == pictures


def test_no_page_needs_anything_from_elsewhere_or_breaks_its_own_policy(played):
    for address in all_addresses(played):
        text = page(played, address)
        assert not re.search(r"<[^>]+\s(style|on\w+)=", text), address
        assert "<style" not in text
        assert re.findall(r"<script[^>]*>", text) == ['<script src="/static/live.js" defer>']
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text


def test_looking_writes_nothing(played):
    with Store.view(played.folder / "server.db") as store:
        before = store.changes
        for address in [*all_addresses(played), "/metrics", "/readyz", "/healthz"]:
            played.browser().get(address)
        assert store.changes == before


def test_a_model_without_a_backbone_is_all_that_fedavg_would_send():
    assert ModelSize("mlp", 4_000, 4_000).whole_bytes == 4_000


@pytest.mark.parametrize("choose", ["turn", "need"])
def test_the_picture_is_of_the_probes_that_the_round_asked_for(tmp_path, choose):
    rounds = RoundSettings(quorum=2, duration_s=60, minimum_online=3, pause_s=10, probes=10, choose=choose)
    stage = Stage(tmp_path, rounds=rounds)
    devices = fleet(stage.world)
    for _ in range(2):
        for device in devices:
            device.contribute()
        stage.world.wait(10)
    with stage.source.look() as look:
        consensus = look.state.consensus
        opinions = look.opinions(look.chronicle.hearings(consensus.round.epoch, consensus.round.number), 10)
        told = {one.device: one.agreement for one in look.chronicle.hearings(consensus.round.epoch, 2)}
    assert opinions.devices == ("a", "b", "c")
    shares = 1 - (opinions.claims != opinions.consensus).mean(axis=1)
    assert dict(zip(opinions.devices, shares, strict=True)) == pytest.approx(told)


def test_a_warm_up_has_no_picture(tmp_path):
    rounds = RoundSettings(quorum=2, duration_s=60, minimum_online=3, warm_up_s=30)
    stage = Stage(tmp_path, rounds=rounds)
    for device in fleet(stage.world):
        device.contribute()
    assert stage.world.state.consensus is not None
    assert "No consensus to compare with yet" in words(stage, "/differing")


def test_a_consensus_on_features_has_no_picture_of_classes(tmp_path):
    """A task of two classes under a rule whose probes have three."""
    stage = Stage(tmp_path)
    for device in fleet(stage.world):
        device.contribute()
    stage.source = replace(stage.source, around=replace(stage.source.around, classes=("cat", "dog")))
    with stage.source.look() as look:
        assert look.state.consensus is not None
        assert look.opinions(look.chronicle.hearings(look.state.epoch, 1), 10) is None


# Releases.


def test_the_releases_page_tells_how_far_a_rollout_is_and_why_devices_went_back(tmp_path):
    stage = Stage(tmp_path / "state").play()
    world = stage.world
    assert "Under way" not in words(stage, "/releases")
    for number, said in ((1, {}), (2, {"percent": "5", "tags": "canary"})):
        order = published(number, **said).order
        world.server._reconciler.submit([Ordered(order, world.now_ms)])
    told = words(stage, "/releases")
    for part in ("Under way", "canary", "5 %", "the others run 1"):
        assert part in told, part
    failed = Command(sha256(b"bundle 2").hex()[:32], "model", CommandState.FAILED, 1, reason="2 refused: <b>no</b>")
    world.arrive(TOPICS.command("a", "model"), codec.encode(failed))
    world.settle()
    told = words(stage, "/releases")
    for part in ("halted: 1 of 1 devices refused it", "Why devices went back from 2", "2 refused: &lt;b&gt;no"):
        assert part in told, part


def test_who_fell_silent_on_the_way_is_named_and_the_first_page_says_that_it_halted(tmp_path):
    stage = Stage(tmp_path / "state").play()
    world = stage.world
    order = published(2, percent="50", patience_s="60").order
    world.server._reconciler.submit([Ordered(order, world.now_ms)])
    trying = Command(sha256(b"bundle 2").hex()[:32], "model", CommandState.EXECUTING, 1, step="commit")
    world.arrive(TOPICS.command("a", "model"), codec.encode(trying))
    world.settle()
    assert "Fell silent on" not in words(stage, "/releases")
    world.wait(61)
    told = words(stage, "/releases")
    for part in ("halted: 1 of 1 devices", "Fell silent on their way to 2", "a: commit"):
        assert part in told, part
    assert "is halted: 1 of 1 devices" in words(stage, "/")


def test_the_releases_page_tells_what_the_student_was_released_as(tmp_path):
    stage = Stage(tmp_path / "state", learns=True).play()
    state, world = stage.world.state, stage.world
    assert "Nothing yet" in words(stage, "/releases")
    release = Release(
        number=1,
        round=state.student.round,
        weights=state.student.weights,
        bundle=b"b" * 32,
        version="1.r1",
        package=b"p" * 32,
        package_bytes=14_440,
        is_verified=False,
        at_ms=world.now_ms,
    )
    order = new_order("release", who="ada", at_ms=world.now_ms)
    world.server._reconciler.submit([Ordered(order, world.now_ms), ReleaseMade(release)])
    told = words(stage, "/releases")
    for part in ("1.r1", "current", "unverified, by order", "14.4 kB", "+25.0 points"):
        assert part in told, part
    operator = stage.log_in()
    page = operator.get("/releases")
    assert "Withdraw 1.r1" in page.text
    placed = operator.post("/orders", data={"form": form_of(page), "command": "withdraw"})
    assert placed.status_code == 303
    world.settle()
    assert "All 1 releases were withdrawn" in words(stage, "/releases")


def test_a_database_that_cannot_be_read_is_told_and_is_not_ready(played):
    path = played.folder / "server.db"
    played.world.store.close()
    path.write_bytes(b"no database at all" * 100)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    answer = played.browser().get("/")
    assert answer.status_code == 503
    assert "The database cannot be read" in answer.text
    assert answer.headers["content-security-policy"]
    assert played.browser().get("/readyz").status_code == 503
    assert played.browser().get("/healthz").status_code == 200


def test_readiness_means_that_the_server_runs(played, tmp_path):
    lock = tmp_path / "server.lock"
    app = make_app(Site(replace(played.source, lock=lock), played.access))
    browser = TestClient(app, base_url="http://localhost")
    assert browser.get("/readyz").status_code == 503
    assert "the server does not run" in browser.get("/").text
    with exclusive(lock):
        assert browser.get("/readyz").text == "ready, round 4\n"
        assert "the server runs" in browser.get("/").text
    assert "cannot be told" in played.browser().get("/readyz").text


# What devices gain.


def says(device, label, share=1.0):
    """A contribution that holds `label` likeliest on the first `share` of the probes, and another class on the rest."""
    count = device.world.offer.slice.count
    p = np.full((count, 3), 0.1, np.float32)
    p[:, (label + 1) % 3] += 0.7
    right = np.arange(count) < share * count
    p[right] = 0.1
    p[right, label] += 0.7
    return device.contribute(probabilities=p)


def play_gains(stage, rounds):
    """Play rounds in which each device holds class 0 likeliest on a share of the probes."""
    devices = fleet(stage.world)
    for shares in rounds:
        for device, share in zip(devices, shares, strict=True):
            says(device, 0, share)
        stage.world.wait(10)
    return devices


def test_the_fleet_shows_what_each_device_gained_and_what_the_consensus_owes_it(tmp_path):
    """Canaries 1, 4, 9 and 12 are of classes 0, 1, 2 and 0."""
    stage = Stage(tmp_path)
    play_gains(stage, [(0.0, 0.25, 1.0), (1.0, 0.25, 1.0)])
    for share in (0.75, 0.5):
        report = RoundReport(stage.world.offer.round, sha256(b"z"), accepted=True, metrics={"hold_out_accuracy": share})
        stage.world.arrive(TOPICS.report("a"), codec.encode(report))
    stage.world.settle()
    with stage.source.look() as look:
        known = {one.device: one for one in look.chronicle.devices()}
    assert [known[name].first_canaries for name in "abc"] == [0.25, 0.25, 0.5]
    assert [known[name].last_canaries for name in "abc"] == [0.5, 0.25, 0.5]
    assert (known["a"].canary_gain, known["b"].canary_gain) == (0.25, 0.0)
    assert (known["a"].hold_out_gain, known["b"].hold_out_gain) == (-0.25, None)
    told = words(stage, "/fleet?order=gain")
    assert "+25.0" in told
    assert "-25.0" in told
    assert told.index(" b ") < told.index(" a ")
    alone = words(stage, "/fleet/a")
    assert "+25.0 points: 25.0 % at first, 50.0 % now" in alone


def test_where_nothing_is_known_of_a_gain_nothing_is_claimed(tmp_path):
    stage = Stage(tmp_path, canaries=False)
    play_gains(stage, [(1.0, 1.0, 1.0)])
    with stage.source.look() as look:
        assert {one.canary_gain for one in look.chronicle.devices()} == {None}
        assert (look.chronicle.gain("canaries"), look.chronicle.gain("hold_out")) == (None, None)
        assert look.chronicle.influence(look.state.epoch, 1) is None
    assert "–" in words(stage, "/fleet")


def test_a_device_that_takes_the_place_of_another_begins_at_its_own_first_word(tmp_path):
    stage = Stage(tmp_path)
    play_gains(stage, [(0.0, 1.0, 1.0)])
    place_order(
        stage.spool,
        new_order("replace", who="ada", at_ms=stage.world.now_ms, arguments={"device": "a", "new": "d"}),
    )
    stage.world.settle()
    with stage.source.look() as look:
        assert look.chronicle.device("d").first_canaries is None
        spread = look.chronicle.gain("canaries")
    assert (spread.least, spread.most) == (0.0, 0.0)


# Public sets.


def stage_other(stage, world):
    stage.world.arguments |= {"make_kit": make_kit, "canaries_sha256": OLD_CANARIES}
    world.restart()
    place_order(stage.spool, stage_order())
    world.settle()


def test_both_sets_stand_side_by_side_and_an_operator_goes_from_one_to_the_other(tmp_path):
    stage = Stage(tmp_path)
    world = stage.world
    devices = [world.device(name, public_sets=BOTH) for name in "abc"]
    world.device("old", public_sets=BOTH[:1])
    for device in devices:
        says(device, 0)
    assert "Nothing is staged" in words(stage, "/probes")
    stage_other(stage, world)
    told = words(stage, "/probes")
    assert "Edition 1 current 2 staged" in told
    assert "1 online without the staged set: old" in told
    assert "Online with it 4 of 4 3 of 4" in told
    operator = stage.log_in()

    def press(command):
        shown = operator.get("/probes")
        answer = operator.post("/orders", data={"form": form_of(shown), "command": command})
        assert answer.status_code == 303, answer.text
        world.settle()
        return shown.text

    assert "Switch to edition 2" not in press("probes-trial")
    for device in devices:
        says(device, 1)
    assert "a trial of edition 2" in words(stage, "/history")
    assert "Voices 3 3" in words(stage, "/probes")
    assert '<th scope="row">2</th>' not in page(stage, "/fleet/a").split("chart-3-table")[0].split("chart-1")[1]
    assert "Switch to edition 2" in press("probes-switch")
    told = words(stage, "/probes")
    assert "What rounds are about" in told
    assert "Retired" in told
    assert "ada operator probes-switch edition 2 is current from the next round on" in words(stage, "/audit")


@pytest.mark.parametrize("command", ["probes-stage", "probes-rotate", "forget", "tag", "dance"])
def test_orders_that_name_files_or_devices_are_for_the_command_line(played, command):
    operator = played.log_in()
    answer = operator.post("/orders", data={"form": form_of(operator.get("/probes")), "command": command})
    assert answer.status_code == 400


def test_who_may_only_look_gets_no_buttons(tmp_path):
    stage = Stage(tmp_path)
    stage_other(stage, stage.world)
    assert "probes-trial" not in page(stage, "/probes")


def test_a_round_that_nobody_knows_the_probes_of_says_so_on_the_first_page(tmp_path):
    stage = Stage(tmp_path)
    for device in fleet(stage.world):
        device.send_map([FAR] * 20)
        says(device, 0)
    assert "100% of the probes lie far from every device, and learning from them would do harm" in words(stage, "/")
    assert "Runbook: RoundsUncovered" in words(stage, "/")


def test_a_device_page_tells_what_the_device_was_told_to_do(stage):
    fleet(stage.world)
    arguments = {"device": "a", "command": "log-level", "for_s": "60", "=level": "debug"}
    placed = new_order(DEVICE_COMMAND, who="ada", at_ms=stage.world.now_ms, arguments=arguments)
    assert "What it was told to do" not in words(stage, "/fleet/a")
    place_order(stage.spool, placed)
    stage.world.settle()
    assert "log-level level=debug sent" in words(stage, "/fleet/a")
    answer = Command(placed.id, "log-level", CommandState.SUCCESSFUL, 1, result={"until_utc_s": "<b>7"})
    stage.world.arrive(TOPICS.command("a", "log-level"), codec.encode(answer))
    stage.world.settle()
    assert "log-level level=debug successful 1 entry until utc s &lt;b&gt;7" in words(stage, "/fleet/a")
    assert "log-level sent to 1 device" in words(stage, "/audit")
