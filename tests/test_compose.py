"""The docker-compose stack as it is written down: what is open, what each service may do, and that the files agree."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from camserve.stack import Ports, Stack, gateway, torchserve

ROOT = Path(__file__).resolve().parents[1]
SERVICES = ["gateway", "grafana", "prometheus", "torchserve"]
FILES = ["docker-compose.yml", "docker-compose.gpu.yml", "docker-compose.tls.yml"]
SCRATCH = "/run/camserve"

WHOLE = [*SERVICES, "tls"]
"""All services that any of the files begins."""

each_service = pytest.mark.parametrize("name", WHOLE)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def compose(name="docker-compose.yml"):
    return yaml.safe_load(read(name))


def service(name):
    return compose("docker-compose.tls.yml" if name == "tls" else "docker-compose.yml")["services"][name]


def dockerfile():
    """Its instructions, with lines that go on put together."""
    lines = re.sub(r"\\\n\s*", "", read("Dockerfile")).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]


def final_stage():
    instructions = dockerfile()
    start = max(at for at, (word, _) in enumerate(instructions) if word == "FROM")
    return instructions[start:]


def variables(text):
    return set(re.findall(r"\$\{(\w+)", text))


def addresses(port):
    """What a published port is bound to when nothing is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", port)


# What can be reached


def test_there_are_these_services():
    assert sorted(compose()["services"]) == SERVICES


def test_the_gateway_is_published_and_grafana_on_this_machine_only():
    published = {name: one.get("ports", []) for name, one in compose()["services"].items()}
    assert {name: [addresses(port) for port in ports] for name, ports in published.items() if ports} == {
        "gateway": ["0.0.0.0:8080:8080"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_only_what_is_published_is_on_a_network_that_leads_out():
    networks = compose()["networks"]
    open_networks = {name for name, one in networks.items() if not one.get("internal")}
    on_them = {name for name in SERVICES if open_networks & set(service(name)["networks"])}
    assert on_them == {"gateway", "grafana"}
    assert all(set(service(name)["networks"]) <= set(networks) for name in SERVICES)


def test_the_gateway_and_torchserve_are_alone_on_their_network():
    assert [name for name in SERVICES if "serving" in service(name)["networks"]] == ["gateway", "torchserve"]


def test_torchserves_management_stays_in_its_container():
    environment = service("torchserve")["environment"]
    opened = {name for name, value in environment.items() if "0.0.0.0" in str(value)}
    assert opened == {"TS_INFERENCE_ADDRESS", "TS_METRICS_ADDRESS", "CAMSERVE_SCRAPE_ADDRESS"}
    assert "management_address=http://127.0.0.1:8081\n" in read("config/config.properties")


def test_grafana_has_no_password_of_ours_and_lets_nobody_in_without_one():
    environment = service("grafana")["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_ADMIN_PASSWORD:?")
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "${GRAFANA_ANONYMOUS:-false}"
    assert "\nGRAFANA_ADMIN_PASSWORD=\n" in read(".env.example")
    assert ".env" in read(".gitignore").splitlines()


# What a service may do

GRANTS = {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices", "group_add", "userns_mode", "volumes_from"}


@each_service
def test_it_has_no_rights_it_does_not_need(name):
    one = service(name)
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["read_only"] is True
    assert not GRANTS & set(one)


@pytest.mark.parametrize("file", FILES[1:])
def test_no_file_gives_back_what_another_takes(file):
    """What an added file may say about a service that it does not begin."""
    allowed = {"docker-compose.gpu.yml": {"mem_limit", "deploy"}, "docker-compose.tls.yml": {"environment", "networks"}}
    changed = {name: one for name, one in compose(file)["services"].items() if name in SERVICES}
    assert changed
    assert all(set(one) <= allowed[file] for one in changed.values())


def test_every_compose_file_is_looked_at():
    assert sorted(FILES) == sorted(file.name for file in ROOT.glob("docker-compose*.yml"))
    begun = {name for file in FILES for name, one in compose(file)["services"].items() if "image" in one}
    assert begun == set(WHOLE)


@each_service
def test_no_service_runs_as_root(name):
    """Said for each, and not left to its image."""
    user, _, group = service(name)["user"].partition(":")
    assert int(user) > 0
    assert group.isdigit()


@pytest.mark.parametrize(("name", "file"), [("torchserve", "Dockerfile"), ("tls", "config/caddy/Dockerfile")])
def test_an_image_of_ours_has_the_same_user(name, file):
    """To whom its folders belong. Numbers above 10000 are nobody's on most machines."""
    assert re.findall(r"^USER (.+)$", read(file), re.MULTILINE) == [service(name)["user"]]
    assert all(int(number) > 10000 for number in service(name)["user"].split(":"))


def test_these_images_are_ours():
    ours = {name for file in FILES for name, one in compose(file)["services"].items() if "build" in one}
    assert ours == {"torchserve", "tls"}


def test_a_public_image_has_the_user_that_its_volumes_belong_to():
    """As its Dockerfile makes the user, and the folder behind the volume."""
    assert {name: service(name)["user"] for name in ("gateway", "prometheus", "grafana")} == {
        "gateway": "101:101",
        "prometheus": "65534:65534",
        "grafana": "472:0",
    }


def test_memory_that_is_mounted_belongs_to_the_user():
    mounts = [(name, mount) for name in WHOLE for mount in service(name).get("tmpfs", [])]
    owners = [(name, *re.findall(r"[ug]id=(\d+)", mount)) for name, mount in mounts if "uid=" in mount]
    assert len(owners) == 7
    assert [":".join(owner) for _, *owner in owners] == [service(name)["user"] for name, *_ in owners]


@each_service
def test_it_sees_nothing_of_this_machine_but_settings_that_it_cannot_change(name):
    for volume in service(name).get("volumes", []):
        source, *_, mode = volume.split(":")
        if source.startswith((".", "/")):
            assert mode == "ro"
            assert source.startswith(("./config/", "./handler/camserve/page"))
            assert (ROOT / source).exists(), source
        else:
            assert source in compose("docker-compose.tls.yml" if name == "tls" else "docker-compose.yml")["volumes"]


@each_service
def test_it_is_limited(name):
    one = service(name)
    assert re.fullmatch(r"\d+[mg]", addresses(one["mem_limit"]))
    assert float(addresses(str(one["cpus"]))) > 0
    assert one["pids_limit"] > 0
    assert one["logging"]["options"].keys() == {"max-size", "max-file"}
    assert all("size=" in mount for mount in one.get("tmpfs", []))


@each_service
def test_it_is_watched_and_started_again(name):
    one = service(name)
    assert one["restart"] == "unless-stopped"
    assert one["init"] is True
    check = one["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "start_period", "retries"} <= set(check)


def test_services_wait_for_what_they_need():
    needed = {name: service(name).get("depends_on", {}) for name in SERVICES}
    assert {name: list(others) for name, others in needed.items() if others} == {
        "gateway": ["torchserve"],
        "grafana": ["prometheus"],
    }
    assert all(how == {"condition": "service_healthy"} for others in needed.values() for how in others.values())


@each_service
def test_its_image_has_a_full_version(name):
    _, _, tag = service(name)["image"].rpartition(":")
    assert re.match(r"v?\d+\.\d+\.\d+", tag)


def test_our_own_images_have_our_version():
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert service("torchserve")["image"] == f"camserve:{version}"
    assert service("tls")["image"] == f"camserve-tls:{version}"


def test_the_gpu_is_only_in_the_file_for_it():
    assert "nvidia" not in read("docker-compose.yml")
    (only,) = compose("docker-compose.gpu.yml")["services"].items()
    (device,) = only[1]["deploy"]["resources"]["reservations"]["devices"]
    assert (only[0], device["driver"], device["capabilities"][0]) == ("torchserve", "nvidia", "gpu")


# The image


def test_the_image_starts_from_one_full_version_of_python():
    stages = set()
    for word, rest in dockerfile():
        if word == "FROM":
            base, *name = rest.split()
            assert base in stages or re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)
            stages.update(name[1:])


def test_the_image_for_tls_starts_from_a_full_version_of_caddy():
    assert re.findall(r"^FROM (.*)$", read("config/caddy/Dockerfile"), re.MULTILINE) == ["caddy:2.11.4-alpine"]


def test_the_image_does_not_run_as_root():
    users = [rest for word, rest in final_stage() if word == "USER"]
    assert users == ["10001:10001"]
    assert [word for word, _ in final_stage()][-2:] == ["USER", "CMD"]


def test_the_image_copies_what_exists_and_is_not_ignored():
    admitted = [line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")]
    copied = [rest.split()[:-1] for word, rest in dockerfile() if word == "COPY" and "--from=" not in rest]
    files = {file for files in copied for file in files}
    assert files == set(admitted)
    assert all((ROOT / file).exists() for file in files)


def test_the_image_needs_no_builder_of_its_own():
    assert "--mount" not in read("Dockerfile")


def test_the_image_writes_only_where_memory_is_mounted():
    environment = next(rest for word, rest in final_stage() if word == "ENV")
    written = set(re.findall(rf"=({SCRATCH}/\w+)", environment))
    mounts = {mount.partition(":")[0]: mount for mount in service("torchserve")["tmpfs"]}
    assert written == set(mounts)
    assert all("uid=10001,gid=10001" in mount for mount in mounts.values())
    assert "exec" in mounts[f"{SCRATCH}/tmp"]


def test_workers_count_together_in_memory_that_is_empty_at_every_start():
    environment = next(rest for word, rest in final_stage() if word == "ENV")
    assert f"PROMETHEUS_MULTIPROC_DIR={SCRATCH}/metrics" in environment


def test_threads_wait_in_the_container_as_on_a_local_machine():
    environment = next(rest for word, rest in final_stage() if word == "ENV")
    assert f"GOMP_SPINCOUNT={torchserve.SPINS} " in environment


# The files agree


def test_the_gateway_is_told_all_its_template_asks_for():
    asked = variables(read("config/nginx.conf.template"))
    environment = service("gateway")["environment"]
    assert asked == {name for name in environment if name.startswith("CAMSERVE_")}
    assert environment["NGINX_ENVSUBST_FILTER"] == "^CAMSERVE_"


def test_the_gateways_defaults_are_those_of_camserve_serve(tmp_path):
    local = Stack(tmp_path, "classifier", "classifier.mar", Ports(), ROOT / "config", tmp_path, {})._gateway_values()
    environment = service("gateway")["environment"]
    here = {name: addresses(str(value)).replace("$$", "$") for name, value in environment.items()}
    of_their_own = {"CAMSERVE_TORCHSERVE", "CAMSERVE_PAGE"}
    assert {name: here[name] for name in local.keys() - of_their_own} == {
        name: value for name, value in local.items() if name not in of_their_own
    }


def test_the_containers_nginx_has_as_much_room_as_the_local_one():
    main = read("config/nginx.container.conf")
    assert "./config/nginx.container.conf:/etc/nginx/nginx.conf:ro" in service("gateway")["volumes"]
    assert f"worker_connections {gateway.CONNECTIONS};" in main
    assert f"worker_rlimit_nofile {gateway.OPEN_FILES};" in main
    assert service("gateway")["ulimits"] == {"nofile": gateway.OPEN_FILES}
    assert gateway.OPEN_FILES > 2 * gateway.CONNECTIONS, "a connection may have a file too"


def test_the_gateway_writes_only_where_memory_is_mounted():
    mounts = {mount.partition(":")[0] for mount in service("gateway")["tmpfs"]}
    paths = re.findall(r"(?:_temp_path|pid) (/\S+)/\S+;", read("config/nginx.container.conf"))
    assert len(paths) == 6
    assert set(paths) <= mounts


# Tokens


def test_tokens_are_one_setting_for_both_and_are_off_unless_set():
    for name in ("gateway", "torchserve"):
        assert service(name)["environment"]["CAMSERVE_TOKENS"] == "${CAMSERVE_TOKENS:-false}"
    assert " CAMSERVE_TOKENS=false" in next(rest for word, rest in final_stage() if word == "ENV")


@pytest.mark.parametrize(
    ("setting", "disabled"), [("false", ""), ("true", "false"), ("yes", "false"), ("", "false"), ("False", "false")]
)
def test_only_false_lets_everyone_in(setting, disabled, tmp_path):
    """The image's command, with a python that tells what it was given."""
    script = json.loads(next(rest for word, rest in final_stage() if word == "CMD"))[2]
    (tmp_path / "python").write_text('#!/bin/sh\npwd\necho "[$TS_DISABLE_TOKEN_AUTHORIZATION]"\n')
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(tmp_path), "CAMSERVE_MODEL": "m"}
    environment["CAMSERVE_TOKENS"] = setting
    said = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [str(tmp_path), f"[{disabled}]"]


def test_keys_are_written_where_only_torchserves_user_can_read():
    environment = next(rest for word, rest in final_stage() if word == "ENV")
    assert f"TMPDIR={SCRATCH}/tmp" in environment
    assert all(mount.endswith(",mode=0700") for mount in service("torchserve")["tmpfs"])
    check = service("torchserve")["healthcheck"]["test"][-1]
    assert f'"{SCRATCH}/tmp/key_file.json"' in check
    compile(check, "healthcheck", "exec")
    assert not any("keys" in str(volume) for name in WHOLE for volume in service(name).get("volumes", []))


@pytest.mark.parametrize(
    ("status", "healthy"), [("200", True), ("401", True), ("400", False), ("503", False), ("000", False)]
)
def test_the_gateway_is_healthy_where_it_has_torchserves_word(status, healthy, tmp_path):
    check = service("gateway")["healthcheck"]["test"]
    (tmp_path / "curl").write_text(f"#!/bin/sh\nprintf {status}\n")
    (tmp_path / "curl").chmod(0o755)
    done = subprocess.run(
        [part.replace("$$", "$") for part in check[1:]], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False
    )
    assert (done.returncode == 0) == healthy


# TLS


def test_a_host_name_is_all_that_tls_needs():
    assert variables(read("docker-compose.tls.yml")) == {"CAMSERVE_HOST", "CAMSERVE_TLS_ADDRESS"}
    caddy = read("config/caddy/Caddyfile")
    assert re.findall(r"\{\$(\w+)\}", caddy) == ["CAMSERVE_HOST"]
    assert "Strict-Transport-Security max-age=31536000" in caddy
    assert "admin off" in caddy


def test_with_tls_nobody_gets_in_without():
    """The port that is published for the gateway leads nowhere, and where it listens only Caddy reaches it."""
    gateway = compose("docker-compose.tls.yml")["services"]["gateway"]
    listens = gateway["environment"]["CAMSERVE_LISTEN"]
    assert not service("gateway")["ports"][0].endswith(f":{listens}")
    assert f"reverse_proxy {{$CAMSERVE_UPSTREAM:gateway:{listens}}}" in read("config/caddy/Caddyfile")
    assert gateway["environment"]["CAMSERVE_CLIENT_ADDRESS"] == "$$http_x_forwarded_for", "all come from Caddy"
    assert gateway["networks"] == ["front"]
    assert compose("docker-compose.tls.yml")["networks"] == {"front": {"internal": True}}
    assert [addresses(port) for port in service("tls")["ports"]] == ["0.0.0.0:80:8080", "0.0.0.0:443:8443"]


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        ("", None),
        ("#CAMSERVE_HOST=example.org", None),
        ("CAMSERVE_HOST=", None),
        ("CAMSERVE_HOST=example.org", "docker-compose.yml:docker-compose.tls.yml"),
        (
            "CAMSERVE_HOST=example.org\nCOMPOSE_FILE=docker-compose.yml:docker-compose.gpu.yml",
            "docker-compose.yml:docker-compose.gpu.yml:docker-compose.tls.yml",
        ),
        ("CAMSERVE_HOST=example.org\nCOMPOSE_FILE=docker-compose.yml:docker-compose.tls.yml", None),
    ],
)
def test_make_adds_the_file_for_tls_where_there_is_a_host_name(settings, files, tmp_path):
    (tmp_path / ".env").write_text(settings + "\n")
    environment = {name: value for name, value in os.environ.items() if name not in ("COMPOSE_FILE", "MAKEFLAGS")}
    command = ["make", "--dry-run", "--file", str(ROOT / "Makefile"), "stack-down"]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"COMPOSE_FILE=(\S+)", said) == ([files] if files else [])


def test_the_page_lies_where_the_gateway_looks_for_it():
    gateway = service("gateway")
    assert f"./handler/camserve/page:{gateway['environment']['CAMSERVE_PAGE']}:ro" in gateway["volumes"]
    assert (ROOT / "handler/camserve/page/index.html").is_file()


def test_gateway_and_torchserve_agree_on_port_and_model():
    gateway, torchserve = (service(name)["environment"] for name in ("gateway", "torchserve"))
    assert torchserve["TS_INFERENCE_ADDRESS"].removeprefix("http://0.0.0.0:") == gateway["CAMSERVE_TORCHSERVE"][-4:]
    assert torchserve["CAMSERVE_MODEL"] == gateway["CAMSERVE_MODEL"]


def test_the_example_names_every_variable_with_its_default():
    text = read("docker-compose.yml")
    example = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", read(".env.example"), re.MULTILINE))
    others = {name for file in FILES[1:] for name in variables(read(file))}
    assert set(example) - {"COMPOSE_FILE"} == variables(text) | others
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    assert {name: example[name] for name in defaults} == defaults


def test_the_example_names_the_files_for_a_gpu():
    (files,) = re.findall(r"^#COMPOSE_FILE=(.*)$", read(".env.example"), re.MULTILINE)
    assert all((ROOT / file).exists() for file in files.split(":"))


def test_what_prometheus_scrapes_is_what_torchserve_opens():
    jobs = yaml.safe_load(read("config/prometheus/prometheus.yml"))["scrape_configs"]
    targets = {target for job in jobs for group in job["static_configs"] for target in group["targets"]}
    assert {"torchserve:8082", "torchserve:8083"} <= targets
    assert service("torchserve")["environment"]["TS_METRICS_ADDRESS"].endswith(":8082")
