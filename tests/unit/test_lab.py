"""The pure parts of the throwaway lab: names, slots, addresses, hashes, refusals, image archives."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import yaml

from lab import applications, docker29, preinstalled, rootfs, wheels
from lab.__main__ import split_command
from lab.archive import Entry, Image, familiar, layer, write_images
from lab.plan import SLOTS, SUITES, Instance, allocate_slot, check_engine, check_name, clashes
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
    wanted = {"systemd-timesyncd", "python3-yaml"}  # of base, by a variable; of people, where there are users
    for path in (Path(__file__).resolve().parents[2] / "roles").glob("*/defaults/main.yml"):
        wanted.update(yaml.safe_load(path.read_text()).get(f"{path.parts[-3]}_packages", ()))
    assert wanted - {*rootfs.PACKAGES} == {*preinstalled.ROLES}
    assert preinstalled.ENGINES.keys() == SUITES.keys() - {"none"}


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
    assert (one.lan.gateway, one.lan.gateway6) == ("10.213.3.1", "fd52:4600:3::1")
    assert (one.lan.address("atlas"), one.lan.address6("atlas")) == ("10.213.3.10", "fd52:4600:3::10")
    assert (one.wan.address("outside"), one.wan.address6("outside")) == ("198.51.100.116", "2001:db8:3::20")
    assert one.container("atlas") == "rf-h-atlas"
    assert one.network(one.wan) == "rf-h-wan"


def test_the_inventory_of_the_demo_agrees_on_the_addresses() -> None:
    text = (Path(rootfs.__file__).parents[1] / "inventories/demo/group_vars/demo/site.yml").read_text()
    wan = str(Instance("demo", 0, "26.1").wan.subnet)
    assert f'demo_wan4: "{wan.rsplit(".", 1)[0]}"' in text


def test_slots_do_not_overlap() -> None:
    subnets = [side.subnet for slot in SLOTS for side in Instance("x", slot, "none").sides]
    assert not [(a, b) for i, a in enumerate(subnets) for b in subnets[i + 1 :] if a.overlaps(b)]


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
    for engine in SUITES:
        assert len(rootfs.host_recipe(engine).key()) == 12


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
    declared = (Path(rootfs.__file__).parents[1] / "group_vars/all/services.yml").read_text()
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
