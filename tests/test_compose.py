"""The docker-compose stack as it is written down: what is open, what each service may do, and that the files agree."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from camserve.stack import Ports, Stack, gateway

ROOT = Path(__file__).resolve().parents[1]
SERVICES = ["gateway", "grafana", "prometheus", "torchserve"]
SCRATCH = "/run/camserve"

each_service = pytest.mark.parametrize("name", SERVICES)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def compose(name="docker-compose.yml"):
    return yaml.safe_load(read(name))


def service(name):
    return compose()["services"][name]


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


@each_service
def test_it_has_no_rights_it_does_not_need(name):
    one = service(name)
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["read_only"] is True
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices", "user"} & set(one)


@each_service
def test_it_sees_nothing_of_this_machine_but_settings_that_it_cannot_change(name):
    for volume in service(name).get("volumes", []):
        source, *_, mode = volume.split(":")
        if source.startswith((".", "/")):
            assert mode == "ro"
            assert source.startswith(("./config/", "./handler/camserve/page"))
            assert (ROOT / source).exists(), source
        else:
            assert source in compose()["volumes"]


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


def test_our_own_image_has_our_version():
    assert service("torchserve")["image"] == f"camserve:{tomllib.loads(read('pyproject.toml'))['project']['version']}"


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


# The files agree


def test_the_gateway_is_told_all_its_template_asks_for():
    asked = variables(read("config/nginx.conf.template"))
    environment = service("gateway")["environment"]
    assert asked == {name for name in environment if name.startswith("CAMSERVE_")}
    assert environment["NGINX_ENVSUBST_FILTER"] == "^CAMSERVE_"


def test_the_gateways_defaults_are_those_of_camserve_serve(tmp_path):
    local = Stack(tmp_path, "classifier", "classifier.mar", Ports(), ROOT / "config", tmp_path, {})._gateway_values()
    here = {name: addresses(str(value)) for name, value in service("gateway")["environment"].items()}
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
    assert set(example) - {"COMPOSE_FILE"} == variables(text) | variables(read("docker-compose.gpu.yml"))
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
