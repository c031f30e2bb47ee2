"""`scripts/build_kernel.py` and the project it builds: what is written is what the `kernels` package reads."""

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest

import build_kernel
from build_kernel import CannotBuild, Toolchain, Variant
from dense_prediction.errors import UserError


ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "build_kernel.py"
PROJECT = ROOT / "kernels" / "comer-msda"

# A project of the same form that compiles in seconds.
MINIATURE = {
    "build.toml": """\
        [general]
        name = "tiny-kernel"
        version = 3
        edition = 5
        license = "Apache-2.0"
        backends = ["cpu", "cuda"]

        [torch]
        src = ["torch-ext/torch_binding.cpp"]
        stable-abi = { cpu = "2.11", cuda = "2.11" }

        [kernel.tiny_cpu]
        backend = "cpu"
        depends = ["torch"]
        include = ["csrc"]
        src = ["csrc/answer.h", "csrc/answer.cpp"]

        [kernel.tiny_cuda]
        backend = "cuda"
        depends = ["torch"]
        cuda-capabilities = ["8.0", "9.0+PTX"]
        src = ["csrc/answer.cu"]
        """,
    "csrc/answer.h": "long answer();\n",
    "csrc/answer.cpp": '#include "answer.h"\nlong answer() { return 42; }\n',
    "csrc/answer.cu": "long answer() { return 42; }\n",
    "torch-ext/torch_binding.cpp": """\
        #include <torch/csrc/stable/library.h>
        #include "registration.h"
        long answer();
        int64_t the_answer() { return answer(); }
        STABLE_TORCH_LIBRARY_EXPAND(TORCH_EXTENSION_NAME, ops) { ops.def("answer() -> int"); }
        STABLE_TORCH_LIBRARY_IMPL_EXPAND(TORCH_EXTENSION_NAME, CompositeExplicitAutograd, ops) {
          ops.impl("answer", TORCH_BOX(&the_answer));
        }
        REGISTER_EXTENSION(TORCH_EXTENSION_NAME)
        """,
    "torch-ext/tiny_kernel/__init__.py": "from . import nested\nfrom ._ops import ops\n\nassert ops.answer() == 42\n",
    "torch-ext/tiny_kernel/nested/__init__.py": "from .._ops import add_op_namespace_prefix\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name, text in MINIATURE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"^        ", "", text, flags=re.MULTILINE))
    return folder


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    try:
        toolchain = build_kernel.find_toolchains("cpu")["cpu"]
        build_kernel.check_compiler(toolchain.compiler)
    except CannotBuild as error:
        pytest.skip(str(error))
    return toolchain


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in {"CXX", "CUDA_HOME"}} | environment
    return subprocess.run([sys.executable, SCRIPT, *arguments], env=environment, capture_output=True, text=True)


def test_build_toml_is_valid() -> None:
    rust = pytest.importorskip("kernels._rust")
    rust.Build.open(PROJECT)


@pytest.mark.parametrize("folder", ["csrc", "torch-ext"])
def test_every_source_is_listed(folder: str) -> None:
    listed = {path for backend in ("cpu", "cuda") for path in Variant(PROJECT, backend).sources()}
    code = {".cpp", ".h", ".cu", ".cuh"}
    there = {path for path in (PROJECT / folder).rglob("*") if path.suffix in code and path.name != "registration.h"}
    assert there == {path for path in listed if path.is_relative_to(PROJECT / folder)}


def test_every_key_of_a_component_is_used() -> None:
    config = tomllib.loads((PROJECT / "build.toml").read_text())
    used = {"src", "backend", "depends", "include", "cxx-flags", "cuda-flags", "cuda-capabilities", "stable-abi"}
    for component in [config["torch"], *config["kernel"].values()]:
        assert component.keys() <= used


def test_folder_does_not_shadow_the_package() -> None:
    packages = [path.relative_to(PROJECT) for path in (ROOT / "kernels").rglob("__init__.py")]
    assert {path.parts[0] for path in packages} <= {"torch-ext", "build"}
    pytest.importorskip("kernels._rust")
    code = "import kernels; print(kernels.get_local_kernel.__module__)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "kernels.load\n", result.stderr


@pytest.mark.parametrize("backend, cuda_version, label", [("cpu", None, "cpu"), ("cuda", "13.0", "cu130")])
def test_name_is_parsed(backend: str, cuda_version: str | None, label: str) -> None:
    variants = pytest.importorskip("kernels.variants")
    name = Variant(PROJECT, backend, cuda_version).name
    parsed = variants.parse_variant(name)
    assert parsed.variant_str == name
    assert (str(parsed.framework.version), parsed.arch.backend.variant_str) == ("2.11", label)
    if backend == "cpu":
        chosen, _ = variants.resolve_variant([parsed], "cpu")
        assert chosen == parsed


@pytest.mark.parametrize(
    "nvcc, torch, fits", [("13.0", "13.2", True), ("13.2", "13.0", False), ("12.8", "13.0", False)]
)
def test_cuda_versions_as_the_kernels_package_judges(
    nvcc: str, torch: str, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "nvcc"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho Cuda compilation tools, release {nvcc}, V{nvcc}.88\n")
    program.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(build_kernel, "torch_cuda_version", lambda: torch)
    if fits:
        assert build_kernel.find_cuda_toolchain("c++") == Toolchain("c++", str(program), nvcc)
    else:
        with pytest.raises(CannotBuild, match=f"nvcc {nvcc} is for another CUDA than torch, which has {torch}"):
            build_kernel.find_cuda_toolchain("c++")


def test_torch_cuda_version_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    assert build_kernel.torch_cuda_version() == torch.version.cuda


@pytest.mark.parametrize("backend, archs", [("cpu", None), ("cuda", ["8.0", "9.0+PTX"])])
def test_metadata_is_parsed(backend: str, archs: list[str] | None, project: Path, tmp_path: Path) -> None:
    rust = pytest.importorskip("kernels._rust")
    variant, folder = Variant(project, backend), tmp_path / "variant"
    (tmp_path / "library.abi3.so").write_bytes(b"")
    build_kernel.assemble(variant, tmp_path / "library.abi3.so", folder)
    metadata = rust.Metadata.read_from_file(folder / "metadata.json")
    assert (metadata.id, str(metadata.name), metadata.version) == (variant.ops_id, "tiny-kernel", 3)
    assert (metadata.license, metadata.python_depends) == ("Apache-2.0", [])
    assert (str(metadata.backend.backend_type), metadata.backend.archs) == (backend, archs)
    metadata.digest.validate(rust.Digest.hash_variant(rust.DigestAlgorithm.SHA256, folder))
    assert set(metadata.digest.files) == {"__init__.py", "nested/__init__.py", "_ops.py", "library.abi3.so"}


def test_ops_are_the_builds_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "_ops.py").write_text(build_kernel.OPS.format(ops_id="_some_ops_1234567"))
    (package / "_some_ops_1234567.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("some_package._ops")
    assert module.add_op_namespace_prefix("attend") == "_some_ops_1234567::attend"
    assert module.ops.name == "_some_ops_1234567"


@pytest.mark.parametrize(
    "name, changed",
    [
        ("csrc/answer.cpp", {"cpu"}),
        ("csrc/answer.h", {"cpu"}),
        ("csrc/answer.cu", {"cuda"}),
        ("torch-ext/torch_binding.cpp", {"cpu", "cuda"}),
        ("torch-ext/tiny_kernel/nested/__init__.py", {"cpu", "cuda"}),
    ],
)
def test_id_follows_the_sources(name: str, changed: set[str], project: Path) -> None:
    before = {backend: Variant(project, backend).ops_id for backend in ("cpu", "cuda")}
    assert all(re.fullmatch(f"_tiny_kernel_{backend}_[0-9a-f]{{7}}", before[backend]) for backend in before)
    with (project / name).open("a") as file:
        file.write("\n")
    assert {backend for backend in before if Variant(project, backend).ops_id != before[backend]} == changed


def test_id_follows_the_flags(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [Variant(project, "cpu").ops_id, Variant(project, "cpu", sanitize=True).ops_id]
    monkeypatch.setattr(build_kernel, "CXX_FLAGS", [*build_kernel.CXX_FLAGS, "-O1"])
    ids.append(Variant(project, "cpu").ops_id)
    config = project / "build.toml"
    config.write_text(config.read_text().replace('include = ["csrc"]', 'include = ["csrc"]\ncxx-flags = ["-g"]'))
    ids.append(Variant(project, "cpu").ops_id)
    assert len(set(ids)) == 4


def test_compile_commands_follow_build_toml(project: Path, tmp_path: Path) -> None:
    variant = Variant(project, "cuda", "13.0")
    commands = build_kernel.compile_commands(variant, Toolchain("c++", "nvcc", "13.0"), tmp_path)
    assert list(commands) == ["csrc/answer.cu", "torch-ext/torch_binding.cpp"]
    assert [command[0] for command in commands.values()] == ["nvcc", "c++"]
    codes = [flag for flag in commands["csrc/answer.cu"] if flag.startswith("-gencode")]
    assert [code.removeprefix("-gencode=arch=") for code in codes] == [
        "compute_80,code=sm_80",
        "compute_90,code=sm_90",
        "compute_90,code=compute_90",
    ]
    for command in commands.values():
        assert {"-DTORCH_TARGET_VERSION=0x020b000000000000", f"-DTORCH_EXTENSION_NAME={variant.ops_id}"} <= set(
            command
        )


def test_missing_source(project: Path) -> None:
    (project / "csrc" / "answer.h").unlink()
    with pytest.raises(UserError, match=r"build.toml lists csrc/answer.h, which is not there"):
        _ = Variant(project, "cpu").ops_id


def place_old_build(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text(json.dumps({"id": "old"}))
    (folder / "old.abi3.so").write_text("")


def test_build_replaces_an_old_one_and_is_not_repeated(
    project: Path, tmp_path: Path, toolchain: Toolchain, capsys: pytest.CaptureFixture
) -> None:
    variant, output = Variant(project, "cpu"), tmp_path / "build"
    place_old_build(output / variant.name)
    build_kernel.build(variant, toolchain, output)
    log = capsys.readouterr().out
    assert "[2/2]" in log and variant.ops_id in log
    assert "it loads" in log or build_kernel._rust is None
    assert [path.name for path in (output / variant.name).glob("*.so")] == [f"{variant.ops_id}.abi3.so"]
    assert [path.name for path in output.iterdir()] == [variant.name]
    build_kernel.build(variant, toolchain, output)
    assert capsys.readouterr().out == f"{variant.name}: up to date\n"


@pytest.mark.parametrize("with_old_one", [False, True])
def test_two_builds_at_once(
    with_old_one: bool, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have compiled, both put the same variant in place."""
    barrier, variant, rename = Barrier(2, timeout=60), Variant(project, "cpu"), Path.rename
    folder = tmp_path / "build" / variant.name
    folder.parent.mkdir()
    if with_old_one:
        place_old_build(folder)

    def rename_together(path: Path, target: Path) -> Path:
        with suppress(BrokenBarrierError):  # one of the two has nothing to rename
            barrier.wait(timeout=1)
        return rename(path, target)

    def put_in_place(name: str) -> None:
        new = tmp_path / name / "new"
        new.mkdir(parents=True)
        (new / "metadata.json").write_text(json.dumps({"id": variant.ops_id}))
        build_kernel.replace(variant, folder, new, tmp_path / name / "old")

    monkeypatch.setattr(Path, "rename", rename_together)
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(put_in_place, name) for name in ("one", "two")]:
            job.result()
    assert build_kernel.is_built(variant, folder)


@pytest.mark.parametrize(
    "name, text, error, message",
    [
        ("csrc/answer.cpp", "long answer() { return many; }", "compiling csrc/answer.cpp failed", "many"),
        ("torch-ext/tiny_kernel/__init__.py", "raise OSError('refuses')", "is built but does not load", "refuses"),
    ],
)
def test_broken_build_leaves_the_old_one(
    name: str,
    text: str,
    error: str,
    message: str,
    project: Path,
    tmp_path: Path,
    toolchain: Toolchain,
    capfd: pytest.CaptureFixture,
) -> None:
    if "load" in error and build_kernel._rust is None:
        pytest.skip("the kernels package, which would load it, is not installed")
    folder = tmp_path / "build" / Variant(project, "cpu").name
    place_old_build(folder)
    (project / name).write_text(text)
    with pytest.raises(UserError, match=error):
        build_kernel.build(Variant(project, "cpu"), toolchain, tmp_path / "build")
    assert message in capfd.readouterr().err
    assert {path.name for path in (tmp_path / "build").rglob("*")} == {folder.name, "metadata.json", "old.abi3.so"}


def ptxas_report(name: str, registers: int, spilled: int) -> str:
    return (
        f"ptxas info    : Compiling entry function '{name}' for 'sm_90'\n"
        f"ptxas info    : Function properties for {name}\n"
        f"    {spilled} bytes stack frame, {spilled} bytes spill stores, {spilled} bytes spill loads\n"
        f"ptxas info    : Used {registers} registers, used 0 barriers, 360 bytes cmem[0]\n"
    )


def test_outdated_builds_are_removed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A torch with CUDA would load an old CUDA build in place of the new CPU one."""
    monkeypatch.setattr(build_kernel, "PROJECT", project)
    variants = [Variant(project, "cpu"), Variant(project, "cuda", "13.0"), Variant(project, "cuda", "12.6")]
    for variant, ops_id in zip(variants, [variants[0].ops_id, variants[1].ops_id, "_tiny_kernel_cuda_0000000"]):
        (tmp_path / variant.name).mkdir()
        (tmp_path / variant.name / "metadata.json").write_text(json.dumps({"id": ops_id}))
    build_kernel.remove_outdated(tmp_path)
    assert [(tmp_path / variant.name).exists() for variant in variants] == [True, True, False]
    assert "cu126-" in capsys.readouterr().out


def test_registers_are_reported(capsys: pytest.CaptureFixture) -> None:
    build_kernel.check_registers(ptxas_report("forward", 64, 0) + ptxas_report("backward", 80, 0))
    assert capsys.readouterr().out == "  2 CUDA kernels, at most 80 registers, no spills\n"


def test_spills_are_an_error(capsys: pytest.CaptureFixture) -> None:
    reports = ptxas_report("forward", 64, 0) + ptxas_report("backward", 255, 16)
    with pytest.raises(UserError, match="1 of 2 CUDA kernels spill registers"):
        build_kernel.check_registers(reports)
    assert "16 bytes: backward" in capsys.readouterr().err


def test_warnings_are_shown_without_the_reports(capsys: pytest.CaptureFixture) -> None:
    build_kernel.show_warnings("answer.cpp:1: warning: unused\n" + ptxas_report("forward", 64, 0))
    assert capsys.readouterr().err == "  answer.cpp:1: warning: unused\n"


def test_no_compiler() -> None:
    result = run_script("--backend", "cpu", PATH="")
    assert result.returncode == 1
    assert result.stderr == "error: no C++ compiler: c++ or g++ not found (install g++, or set CXX)\n"
    result = run_script("--backend", "cpu", "--if-possible", PATH="", CXX="missing-c++")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("the native kernel is not built: no C++ compiler: missing-c++ not found")
    assert len(result.stdout.splitlines()) == 1


def test_compiler_without_headers(monkeypatch: pytest.MonkeyPatch, toolchain: Toolchain) -> None:
    monkeypatch.setattr(build_kernel, "include_flags", lambda: [])
    with pytest.raises(CannotBuild, match=r"Python.h.*\(install python3-dev\)"):
        build_kernel.check_compiler(toolchain.compiler)


@pytest.mark.parametrize("arguments", [["--sanitize"], ["--sanitize", "--backend", "cuda", "--output", "x"]])
def test_sanitized_build_has_a_folder_of_its_own(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["build_kernel.py", *arguments])
    with pytest.raises(UserError, match="into a folder of its own: give --output"):
        build_kernel.main()
