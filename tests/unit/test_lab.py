"""The pure parts of the throwaway lab: names, slots, addresses, hashes, refusals, image archives."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import applications, declaration, docker29, engine, further, preinstalled, rootfs, state, wheels
from lab.__main__ import split_command
from lab.archive import Entry, Image, familiar, layer, write_images
from lab.plan import SLOTS, SUITES, Host, Instance, allocate_slot, check_engine, check_name, clashes
from lab.shell import LabError


@pytest.mark.parametrize("name", ["demo", "h-lab", "a", "t-2010"])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "Demo", "1st", "-x", "a_b", "a" * 25, "a/b", "a b", "../x"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(LabError, match="1 to 24 characters"):
        check_name(name)


def test_an_unknown_engine_names_the_nearest() -> None:
    with pytest.raises(LabError, match=r"--engine 26: .*did you mean 26\.1"):
        check_engine("26")


def test_every_engine_has_a_release() -> None:
    assert {check_engine(engine) for engine in SUITES} == {"none", "20.10", "26.1", "28.5", "29"}


def test_what_is_preinstalled_is_what_the_roles_install() -> None:
    # Of base, by a variable; of people, where there are users; of wireguard, where there is a VPN.
    wanted = {"systemd-timesyncd", "python3-yaml", "wireguard-go", "wireguard-tools"}
    for path in (Path(__file__).resolve().parents[2] / "roles").glob("*/defaults/main.yml"):
        wanted.update(yaml.safe_load(path.read_text()).get(f"{path.parts[-3]}_packages", ()))
    assert wanted - {*rootfs.PACKAGES} == {*preinstalled.ROLES}
    assert preinstalled.ENGINES.keys() == SUITES.keys()
    assert preinstalled.ENGINES["none"] == ()


def test_the_demo_has_slot_0_and_others_the_first_free_one() -> None:
    assert allocate_slot("demo", {"a": 1}) == 0
    assert allocate_slot("b", {"demo": 0, "a": 1, "c": 3}) == 2
    assert allocate_slot("c", {"demo": 0, "c": 3}) == 3


def test_unusable_slots_are_passed_over() -> None:
    assert allocate_slot("a", {}, {1: "taken by a VPN"}) == 2
    with pytest.raises(LabError, match="'demo': taken by a VPN"):
        allocate_slot("demo", {}, {0: "taken by a VPN"})


def test_no_free_slot_says_whom_to_take_down() -> None:
    taken = {f"t{slot}": slot for slot in SLOTS if slot}
    with pytest.raises(LabError, match="no slot is free, take one down first: t1, t2"):
        allocate_slot("more", taken)


def test_addresses() -> None:
    one = Instance("h", 3, "26.1")
    assert (str(one.lan.subnet), str(one.wan.subnet)) == ("10.213.3.0/24", "198.51.100.96/27")
    assert one.lan.gateways == ("10.213.3.1", "fd52:4600:3::1")
    assert (one.lan.address("atlas"), one.lan.address6("atlas")) == ("10.213.3.10", "fd52:4600:3::10")
    assert (one.wan.address("outside"), one.wan.address6("outside")) == ("198.51.100.116", "2001:db8:3::20")
    assert one.container("atlas") == "rf-h-atlas"
    assert one.network(one.wan) == "rf-h-wan"


def test_the_inventory_of_the_demo_agrees_on_the_addresses() -> None:
    text = (Path(rootfs.__file__).parents[1] / "inventories/demo/group_vars/demo/site.yml").read_text()
    wan = str(Instance("demo", 0, "26.1").wan.subnet)
    assert f'demo_wan4: "{wan.rsplit(".", 1)[0]}"' in text


def test_slots_do_not_overlap() -> None:
    vps = further.join("x", (), [further.parse("vps@wan")])
    sides = [side for slot in SLOTS for side in Instance("x", slot, "none", vps).sides]
    assert len(sides) == 3 * len(SLOTS)
    subnets = [side.subnet for side in sides]
    assert not [(a, b) for i, a in enumerate(subnets) for b in subnets[i + 1 :] if a.overlaps(b)]


def with_hosts(*texts: str, there: Instance | None = None) -> Instance:
    """An instance in slot 3 with further hosts."""
    hosts = further.join("h", there.further if there else (), [further.parse(text) for text in texts])
    return Instance("h", 3, "29", hosts)


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("nas", further.Wish("nas", None, None)),
        ("nas=20.10", further.Wish("nas", "20.10", None)),
        ("nas@wan", further.Wish("nas", None, "wan")),
        ("h01=none@lan+wan", further.Wish("h01", "none", "lan+wan")),
    ],
)
def test_a_further_host_is_read(text: str, wish: further.Wish) -> None:
    assert further.parse(text) == wish


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nas=29=28.5", "write NAME, NAME=ENGINE"),
        ("nas@lan=29", "write NAME, NAME=ENGINE"),
        ("", "1 to 24 characters"),
        ("my-nas", "1 to 24 characters"),
        ("1st", "1 to 24 characters"),
        ("outside=29", "'outside' is taken"),
        ("vantages", "'vantages' is taken"),
        ("nas=28", r"--host nas with engine 28: .*did you mean 28\.5"),
        ("nas=", "not one of none, "),
        ("nas@", "not one of lan, wan"),
        ("nas@lan,wan", r"'lan,wan' is not one of lan, wan, lan\+wan"),
    ],
)
def test_what_no_further_host_can_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        further.parse(text)


def test_addresses_of_further_hosts() -> None:
    one = with_hosts("nas=20.10", "edge=29@wan", "hub@lan+wan")
    assert one.names == ("atlas", "outside", "nas", "edge", "hub")
    assert [(host.engine, host.sides) for host in one.further] == [("20.10", "lan"), ("29", "wan"), ("none", "lan+wan")]
    assert one.lan.addresses("nas") == ("10.213.3.30", "fd52:4600:3::30")
    assert one.wan.addresses("edge") == ("198.51.100.120", "2001:db8:3::24")
    assert one.supply.addresses("edge") == ("10.213.255.56",)
    assert (one.lan.address6("hub"), one.wan.address6("hub")) == ("fd52:4600:3::31", "2001:db8:3::25")
    assert [one.address(name) for name in one.names] == [
        "10.213.3.10", "10.213.3.20", "10.213.3.30", "198.51.100.120", "10.213.3.31",
    ]  # fmt: skip
    assert {name: [side.name for side in one.sides_of(name)] for name in one.names} == {
        "atlas": ["lan", "wan"], "outside": ["lan", "wan"], "nas": ["lan"], "edge": ["wan", "supply"],
        "hub": ["lan", "wan"],
    }  # fmt: skip


def test_only_hosts_on_the_wan_alone_need_a_supply() -> None:
    assert [side.name for side in with_hosts("nas", "hub@lan+wan").sides] == ["lan", "wan"]


def test_every_number_is_an_address_of_its_network() -> None:
    fleet = [f"h{number:03}" for number in range(len(further.NUMBERS["lan"]))]
    for one in (with_hosts(*fleet), with_hosts(*(f"v{number}@wan" for number in range(4)))):
        for side in one.sides:
            found = [address for name in one.names if name in side.numbers for address in side.addresses(name)]
            ends = {str(end) for subnet in side.subnets for end in (subnet[0], subnet[-1])}
            assert len({*found}) == len(found)
            assert not {*found} & {*side.gateways, *ends}


def test_a_full_network_says_so() -> None:
    four = [f"v{number}@wan" for number in range(3)] + ["hub@lan+wan"]
    with pytest.raises(LabError, match=r"--host v5: the wan has room for 4 .*: v0, v1, v2, hub; .*\(@lan\)"):
        with_hosts(*four, "v5@wan")
    with pytest.raises(LabError, match="the lan has room for 224 further hosts"):
        with_hosts(*(f"h{number:03}" for number in range(225)))


def test_hosts_that_are_there_keep_their_place_and_others_come_after_them() -> None:
    there = with_hosts("nas=20.10", "edge@wan")
    more = with_hosts("hub=29@lan+wan", "nas", there=there)
    assert more.further[:2] == there.further
    assert more.further[2] == Host("hub", "29", {"lan": 31, "wan": 25})
    assert with_hosts("nas=20.10@lan", "edge=none", there=there) == there
    assert with_hosts(there=there) == there


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nas=29", "'nas' of 'h' has engine 20.10, not 29"),
        ("nas@lan+wan", r"'nas' of 'h' is on lan, not on lan\+wan"),
        ("edge@lan", "'edge' of 'h' is on wan, not on lan"),
    ],
)
def test_a_host_that_is_there_otherwise_is_refused_with_the_fix(text: str, message: str) -> None:
    there = with_hosts("nas=20.10", "edge@wan")
    with pytest.raises(LabError, match=f"{message}: first `./run lab down h`, or give the new host another name"):
        with_hosts(text, there=there)


def test_a_host_is_asked_for_once() -> None:
    with pytest.raises(LabError, match="--host nas: it is asked for twice"):
        with_hosts("nas", "nas=29")


def test_an_unknown_host_is_refused_with_the_known_ones() -> None:
    one = with_hosts("nas")
    for ask in (one.host, one.address, one.sides_of):
        with pytest.raises(LabError, match=r"no host 'nsa', only atlas, outside, nas; .*--host nsa` adds it"):
            ask("nsa")


def test_the_label_of_a_container_says_what_host_it_is() -> None:
    for host in with_hosts("nas=20.10", "edge@wan", "hub@lan+wan").further:
        assert further.read(host.name, host.engine, further.written(host)) == host


def inventory_of(instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "STATE", tmp_path)
    state.inventory(instance, fresh=True, changed=False)
    return tmp_path / instance.name / "inventory"


def variables(inventory: Path) -> dict[str, Any]:
    """What both engines get: groups, and the variables of every host."""
    root = Path(rootfs.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "ringfence.inventory", str(inventory)],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_inventory_of_one_host_is_the_demos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = inventory_of(Instance("h", 3, "29"), tmp_path, monkeypatch)
    demo = Path(rootfs.__file__).parents[1] / "inventories" / "demo"
    files = {path.relative_to(demo) for path in demo.rglob("*") if path.is_file()}
    assert {path.relative_to(inventory) for path in inventory.rglob("*") if path.is_file()} == files
    instance = Path("group_vars/demo/instance.yml")
    assert all((inventory / path).read_bytes() == (demo / path).read_bytes() for path in files - {instance})
    assert yaml.safe_load((inventory / instance).read_text()).keys() == {"demo_name", "demo_slot", "demo_state"}


def test_what_is_written_for_further_hosts_agrees_with_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = variables(inventory_of(Instance("h", 3, "29"), tmp_path / "1", monkeypatch))
    several = variables(inventory_of(with_hosts("nas=20.10", "edge@wan"), tmp_path / "2", monkeypatch))
    assert several["groups"]["docker_hosts"]["hosts"] == ["atlas", "nas", "edge"]
    assert several["groups"].keys() == alone["groups"].keys()
    assert several["groups"]["vantages"] == alone["groups"]["vantages"]
    before, after = alone["hosts"]["atlas"], several["hosts"]["atlas"]
    assert after["lab_hosts"]["atlas"] == {**before["lab_hosts"]["atlas"], "vpn": {"nat": True}}
    home = after["lab_places"].pop("home")
    assert after["lab_places"]["lan"] == before["lab_places"]["lan"]
    assert after["lab_places"].keys() == {"lan"}
    assert (after["lab_vpn"]["hub"], after["lab_vpn"]["mesh"]) == ("edge", True)
    assert home == ["198.51.100.97/32", "2001:db8:3::1/128"]
    assert {name: one["ansible_host"] for name, one in several["hosts"].items()} == {
        "atlas": before["ansible_host"],
        "outside": alone["hosts"]["outside"]["ansible_host"],
        "nas": "10.213.3.30",
        "edge": "198.51.100.120",
    }
    edge, nas = after["lab_hosts"]["edge"], after["lab_hosts"]["nas"]
    assert edge["addresses"] == ["198.51.100.120", "2001:db8:3::24"]
    assert nas["services"]["ssh"] == {"port": 22, "from": ["lan", "vpn"]}
    assert edge["services"]["ssh"]["from"] == ["home", "vpn"]


def test_a_host_that_comes_later_is_written_and_edits_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = inventory_of(Instance("h", 3, "29"), tmp_path, monkeypatch)
    edit = inventory / "group_vars" / "demo" / "zz_edit.yml"
    edit.write_text("---\nlab_services: {}\n")
    state.inventory(with_hosts("nas"), fresh=False, changed=True)
    assert edit.exists()
    assert "nas" in variables(inventory)["hosts"]
    hosts = inventory / "hosts.yml"
    hosts.write_text(text := hosts.read_text().replace("10.213.3.30", "10.213.3.31"))
    state.inventory(with_hosts("nas"), fresh=False, changed=False)
    assert hosts.read_text() == text


def test_places_are_declared_only_where_a_host_needs_one_more() -> None:
    assert declaration.variables(with_hosts("nas", "hub@lan+wan")).keys() == {"lab_hosts"}


@pytest.mark.parametrize(
    ("needed", "count"),
    [
        (("10.0.0.0/8", "reached by wg0"), 1),
        (("10.213.1.7", "a name server"), 1),
        (("198.51.100.40", "mirror"), 1),
        (("fd52:4600:1::/48", "reached by wg0"), 1),
        (("default", "reached by eth0"), 0),
        (("0.0.0.0/0", "reached by eth0"), 0),
        (("198.51.100.80", "mirror"), 0),
        (("192.168.1.0/24", "reached by eth0"), 0),
    ],
)
def test_what_the_machine_needs_is_not_hidden(needed: tuple[str, str], count: int) -> None:
    found = clashes(1, [needed])
    assert len(found) == count
    assert all(needed[1] in sentence for sentence in found)


def test_a_supply_counts_only_where_there_is_one() -> None:
    needed = [("10.213.255.16/28", "reached by wg0")]
    assert clashes(1, needed) == []
    assert clashes(1, needed, with_hosts("edge@wan").further) == [
        "supply 10.213.255.16/28 overlaps 10.213.255.16/28 (reached by wg0)"
    ]


def test_a_recipe_is_known_by_its_content() -> None:
    recipe = rootfs.Recipe("x", "trixie", ("a", "b"))
    assert recipe.key() == rootfs.Recipe("y", "trixie", ("b", "a")).key()
    assert recipe.key() != rootfs.Recipe("x", "sid", ("a", "b")).key()
    assert recipe.key() != rootfs.Recipe("x", "trixie", ("a", "b"), (rootfs.Copy("/f", "1", Path),)).key()


def test_hosts_of_one_release_share_an_image() -> None:
    images = {engine: rootfs.host_recipe(engine).image for engine in SUITES}
    assert images["none"] == images["26.1"]
    assert len(set(images.values())) == 4
    assert images["29"].startswith("ringfence-lab/trixie-docker29:")


def test_making_a_recipe_builds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> Path:
        raise AssertionError("built")

    monkeypatch.setattr(docker29, "ensure", build)
    monkeypatch.setattr(wheels.Wheel, "program", build)
    for one in SUITES:
        assert len(rootfs.host_recipe(one).key()) == 12


def test_names_of_images() -> None:
    assert familiar("docker.io/library/caddy:2.11.7") == "caddy:2.11.7"
    assert familiar("docker.io/vaultwarden/server:1.36.0") == "vaultwarden/server:1.36.0"
    assert familiar("ghcr.io/a/b:1") == "ghcr.io/a/b:1"


def test_an_archive_stores_shared_layers_once(tmp_path: Path) -> None:
    for name in ("base", "thin"):
        (tmp_path / name).write_bytes(layer([Entry(name), Entry(f"{name}/f", name.encode(), mode=0o644)]))
    base, thin = tmp_path / "base", tmp_path / "thin"
    write_images(tmp_path / "images.tar", [Image("docker.io/library/a:1", [base]), Image("b/c:2", [base, thin])])
    with tarfile.open(tmp_path / "images.tar") as archive:
        names = archive.getnames()
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert [one["RepoTags"] for one in manifest] == [["a:1"], ["b/c:2"]]
        assert len([name for name in names if name.endswith(".tar")]) == 2
        config = json.load(archive.extractfile(manifest[1]["Config"]))  # type: ignore[arg-type]
    assert [f"{digest.removeprefix('sha256:')}.tar" for digest in config["rootfs"]["diff_ids"]] == manifest[1]["Layers"]


def test_equal_content_makes_an_equal_layer() -> None:
    entries = [Entry("d"), Entry("d/f", b"x", mode=0o600, owner=999), Entry("l", link="d/f")]
    assert layer(entries) == layer(list(entries))
    with tarfile.open(fileobj=io.BytesIO(layer(entries))) as archive:
        assert [(one.name, one.mode, one.uid) for one in archive] == [
            ("d", 0o755, 0), ("d/f", 0o600, 999), ("l", 0o777, 0),
        ]  # fmt: skip


def test_every_image_of_the_declared_lab_is_on_the_hosts() -> None:
    declared = (Path(rootfs.__file__).parents[1] / "inventories/demo/group_vars/demo/services.yml").read_text()
    images = {line.split("image:")[1].strip() for line in declared.splitlines() if "image:" in line}
    assert images <= set(applications.NAMES)


def test_an_unknown_source_of_images_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGFENCE_LAB_IMAGES", "hub")
    with pytest.raises(LabError, match="not one of auto, registry, packages"):
        applications.ensure()


@pytest.mark.parametrize(
    ("argv", "own", "remote"),
    [
        (["ssh", "demo"], ["ssh", "demo"], []),
        (["ssh", "demo", "ls", "-la"], ["ssh", "demo"], ["ls", "-la"]),
        (["ssh", "demo", "--host", "outside", "ls", "--host"], ["ssh", "demo", "--host", "outside"], ["ls", "--host"]),
        (["ssh", "--host=outside", "demo", "--", "-x"], ["ssh", "--host=outside", "demo"], ["-x"]),
    ],
)
def test_the_command_of_ssh_is_the_users(argv: list[str], own: list[str], remote: list[str]) -> None:
    assert split_command(argv) == (own, remote)


def test_room_is_made_for_many_hosts_and_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SYSCTLS", tmp_path)
    limits = {tmp_path / name.replace(".", "/"): least for name, least in engine.room_for(21).items()}
    for limit in limits:
        limit.parent.mkdir(parents=True, exist_ok=True)
        limit.write_text("128\n")
    engine.make_room(21)
    assert {limit: int(limit.read_text()) for limit in limits} == limits
    assert engine.room_for(21)["fs.inotify.max_user_instances"] >= 21 * 12
    for limit in limits:
        limit.write_text("99999\n")
    engine.make_room(21)
    assert {limit.read_text() for limit in limits} == {"99999\n"}
    monkeypatch.setattr(engine, "SYSCTLS", tmp_path / "nowhere")
    with pytest.raises(LabError, match="21 hosts need `sysctl fs"):
        engine.make_room(21)
