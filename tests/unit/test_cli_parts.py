"""The command line's parts: flags as pflag reads them, Go templates, sizes, requests, timelines."""

from __future__ import annotations

from typing import Any

import pytest

from boxship.api.engine.address import parse_address
from boxship.cli import main as cli
from boxship.cli.output import filters, human_size, human_size_binary, parse_size, short_size
from boxship.cli.runflags import FLAGS, request
from boxship.cli.streams import Demultiplexer, Detacher, key_codes
from boxship.cli.timeline import as_html, as_text, union
from boxship.errors import InvalidArgument
from boxship.flags import Flag, UsageError, parse
from boxship.template import TemplateError
from boxship.template import parse as template

SOME = (
    Flag("interactive", "i", "bool"),
    Flag("tty", "t", "bool"),
    Flag("env", "e", "list"),
    Flag("name", "", "string"),
    Flag("tail", "n", "string", default="all"),
    Flag("time", "", "int"),
)


@pytest.mark.parametrize(
    ("words", "values", "args"),
    [
        (["-it", "x"], {"interactive": True, "tty": True}, ["x"]),
        (["--tty=false", "x"], {"tty": False}, ["x"]),
        (["-e", "A=1", "-eB=2", "--env=C=3", "--env", "D=4"], {"env": ["A=1", "B=2", "C=3", "D=4"]}, []),
        (["--name", "n", "x", "-t"], {"name": "n", "tty": False}, ["x", "-t"]),
        (["-itn5", "x"], {"interactive": True, "tty": True, "tail": "5"}, ["x"]),
        (["--time", "3", "--", "-t"], {"time": 3}, ["-t"]),
        (["-n=7"], {"tail": "7"}, []),
    ],
)
def test_flags_that_stop_at_the_first_word(words: list[str], values: dict[str, Any], args: list[str]) -> None:
    parsed = parse(SOME, words, interspersed=False)
    assert {key: parsed.values[key] for key in values} == values
    assert parsed.args == args


def test_flags_anywhere() -> None:
    parsed = parse(SOME, ["x", "-t", "y", "--name=n"])
    assert (parsed.tty, parsed.name, parsed.args) == (True, "n", ["x", "y"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nosuch"], "unknown flag: --nosuch"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["--name"], "flag needs an argument: --name"),
        (["-e"], "flag needs an argument: 'e' in -e"),
        (["--tty=maybe"], 'invalid argument "maybe" for "-t, --tty" flag'),
        (["--time", "soon"], "must be a whole number"),
    ],
)
def test_wrong_flags_in_dockers_words(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(SOME, words)
    assert message in str(caught.value)


DOCUMENT = {
    "Name": "web",
    "State": {"Running": True, "Pid": 7},
    "Env": ["A=1", "B=2"],
    "Ports": {"80/tcp": [{"HostPort": "8080"}], "53/udp": None},
    "Labels": {"b": "2", "a": "1"},
    "Empty": [],
}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("{{.Name}}", "web"),
        ("{{ .State.Running }} {{.State.Pid}}", "true 7"),
        ("{{json .Env}}", '["A=1","B=2"]'),
        ("{{.Env}} {{.Labels}}", "[A=1 B=2] map[a:1 b:2]"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{index .Labels "a"}}', "1"),
        ("{{range .Env}}<{{.}}>{{end}}", "<A=1><B=2>"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ('{{if eq .Name "x"}}x{{else if eq .Name "web"}}w{{else}}?{{end}}!', "w!"),
        ("{{with .State}}{{.Pid}}{{end}}", "7"),
        ("{{len .Env}} {{.Name | upper | printf \"%s!\"}}", "2 WEB!"),
        ('{{join .Env ","}}', "A=1,B=2"),
        ("{{- .Name -}}  x", "webx"),
        ("{{/* nothing */}}{{$n := .Name}}{{$n}}{{$n}}", "webweb"),
        ("{{not .State.Running}} {{and .Name .Env}} {{or .Empty .Name}}", "false [A=1 B=2] web"),
        ('{{printf "%-5s|%d" .Name 3}}', "web  |3"),
        ("plain", "plain"),
    ],
)  # fmt: skip
def test_go_templates(form: str, text: str) -> None:
    assert template(form).render(DOCUMENT) == text


@pytest.mark.parametrize(
    "form", ["{{.Name", "{{nosuch .Name}}", "{{if .Name}}x", "{{end}}", "{{(.Name}}", "{{.Nope}}"]
)
def test_broken_templates_are_told(form: str) -> None:
    with pytest.raises(TemplateError):
        template(form).render(DOCUMENT)


def test_sizes() -> None:
    assert [human_size(n) for n in (0, 999, 12288, 2_040_000)] == ["0B", "999B", "12.29kB", "2.04MB"]
    assert human_size_binary(24_650_000_000) == "22.96GiB"
    assert short_size(12288) == "12.3kB"
    assert [parse_size(t, "x") for t in ("512m", "1g", "1024", "1.5KiB", "3b")] == [
        512 << 20, 1 << 30, 1024, 1536, 3,
    ]  # fmt: skip
    with pytest.raises(InvalidArgument, match="invalid size: 'much'"):
        parse_size("much", "--memory")


def test_filters_become_the_apis_parameter() -> None:
    assert filters(["label=a=b", "label=c", "status=exited"]) == (
        '{"label": {"a=b": true, "c": true}, "status": {"exited": true}}'
    )
    with pytest.raises(InvalidArgument, match="invalid filter 'x'"):
        filters(["x"])


def made(*words: str) -> dict[str, Any]:
    return request(parse(FLAGS, list(words), interspersed=False))


def test_a_run_becomes_dockers_request() -> None:
    body = made(
        "-it", "-e", "A=1", "-v", "/a:/b:ro", "-v", "/anon", "-p", "127.0.0.1:8080:80", "-p", "53/udp", "--mount",
        "type=tmpfs,target=/t,tmpfs-size=1m", "-m", "1g", "--cpus", "1.5", "--restart", "on-failure:3", "--ulimit",
        "nofile=10:20", "--entrypoint", "", "-l", "x=y", "image", "cmd", "-v",
    )  # fmt: skip
    host = body["HostConfig"]
    assert (body["Image"], body["Cmd"], body["Entrypoint"]) == ("image", ["cmd", "-v"], [""])
    assert (body["Tty"], body["OpenStdin"], body["AttachStdin"], body["StdinOnce"]) == (True, True, True, True)
    assert host["Binds"] == ["/a:/b:ro"]
    assert host["PortBindings"] == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "", "HostPort": ""}],
    }
    assert host["Mounts"] == [
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20}},
        {"Type": "volume", "Target": "/anon"},
    ]
    assert (host["Memory"], host["NanoCpus"]) == (1 << 30, 1_500_000_000)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert body["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "70000:80", "i"], "invalid hostPort"),
        (["-p", "80/xyz", "i"], "invalid proto"),
        (["-m", "lots", "i"], "invalid size: 'lots'"),
        (["--cpus", "some", "i"], "number of CPUs"),
        (["--mount", "type=bind,nonsense=1", "i"], "unexpected key 'nonsense'"),
        (["--mount", "type=bind,src=/a", "i"], "target is required"),
        (["--ulimit", "nofile", "i"], "invalid ulimit argument"),
        (["-e", "=x", "i"], "invalid environment variable"),
        (["-a", "stdfoo", "i"], "valid streams are"),
        (["--restart", "on-failure:x", "i"], "maximum retry count"),
    ],
)
def test_wrong_values_of_run(words: list[str], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        made(*words)
    assert message in str(caught.value)


def test_env_files_and_the_callers_environment(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\nA=1\n\nFROM_HOST\nMISSING\n")
    monkeypatch.setenv("FROM_HOST", "yes")
    monkeypatch.delenv("MISSING", raising=False)
    assert made("--env-file", str(file), "-e", "FROM_HOST", "i")["Env"] == ["A=1", "FROM_HOST=yes", "FROM_HOST=yes"]


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_multiplexed_output_in_any_segmentation(step: int) -> None:
    data = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err\x01\0\0\0\0\0\0\0"
    split = Demultiplexer()
    found = [part for i in range(0, len(data), step) for part in split.feed(data[i : i + step])]
    assert found == [(1, b"out"), (2, b"err"), (1, b"")]


def test_the_detach_sequence() -> None:
    detacher = Detacher(key_codes(""))
    assert detacher.feed(b"a\x10") == b"a"
    assert detacher.feed(b"b\x10\x11c") == b"\x10b"
    assert detacher.detached


def test_addresses() -> None:
    assert parse_address("unix:///a/b").path == "/a/b"
    tcp = parse_address("tcp://127.0.0.1:2375")
    assert (tcp.host, tcp.port) == ("127.0.0.1", 2375)
    for text in ("", "tcp://", "ftp://x", "unix://", "tcp://h:99999"):
        with pytest.raises(InvalidArgument, match="unable to parse docker host"):
            parse_address(text)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_loads_and_describes_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = cli.load(name)
    assert command.describe("boxship").startswith(f"Usage:  boxship {name}")
    if name != "engine":
        assert cli.main([name, "--help"]) == 0
        assert f"boxship {name}" in capsys.readouterr().out


def test_every_alias_means_a_command() -> None:
    for group in cli.GROUPS.values():
        assert set(group.values()) <= {*cli.COMMANDS, *cli.GROUPED}
        assert all(cli.load(name) for name in group.values())


@pytest.mark.parametrize(
    ("words", "code"), [(["nosuch"], 1), (["rm"], 1), (["run", "--nosuch"], 125), (["tag", "a"], 1)]
)
def test_wrong_command_lines_exit_as_dockers(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "name"),
    [(["build", "."], "build"), (["cp", "a:/b", "c"], "cp"), (["network", "create", "n"], "network create")],
)
def test_a_command_of_dockers_that_is_missing_is_not_called_unknown(
    words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 1
    assert capsys.readouterr().err.startswith(f"boxship: '{name}' is not there yet: ")


def test_nothing_is_both_there_and_missing() -> None:
    assert not cli.MISSING & {*cli.COMMANDS, *cli.GROUPS}


SPANS = [
    {"layer": "boxship", "call": "run hello", "start": 0, "end": 100, "pid": 1},
    {"layer": "engine", "call": "POST /containers/create", "start": 10, "end": 40, "pid": 2},
    {"layer": "executor", "call": "mount <proc>", "start": 30, "end": 50, "pid": 3, "error": "EPERM"},
]


def test_a_timeline_shows_layers_times_and_errors() -> None:
    text = as_text(SPANS, "boxship run")
    assert "through 3 layers (boxship, engine, executor)" in text
    assert "✗ EPERM" in text
    page = as_html(SPANS, "boxship run")
    assert "mount &lt;proc&gt;" in page
    assert "<script" not in page
    assert "http" not in page
    assert union(SPANS) == 100
