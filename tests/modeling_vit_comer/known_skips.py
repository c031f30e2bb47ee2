"""Where all is asked for (VIT_COMER_REQUIRE_ALL, which the Makefile sets on CI), a skip that is not listed here fails.

Who runs pytest by hand may lack a compiler, a network or a package, and skips what needs it. On CI that would be a
suite which nobody sees missing.
"""

import os
import re
from collections.abc import Iterator

import pytest


KNOWN = re.compile(
    "|".join(
        [
            # no GPU, or too small a machine
            "needs a CUDA device",
            "there is no CUDA build",
            "needs 60 GB of free GPU memory",
            "needs 4.6 GB of address space",
            # what lies beside the repository
            "is not on this machine",
            "needs the \\w+ copy beside the repository",
            # the older ONNX exporter, which no part of the product uses
            "the ONNX exporters need the onnx package",
            "an ONNX file is run by onnxruntime",
            # older versions that we run with
            "timm .+ has no ",
            "huggingface_hub .+ cannot upload kernels",
            "this torch does not compile transformers' own code",
            # combinations of parameters that have nothing to test
            "the run keeps no average",
            "a batch of nothing but void has no loss",
        ]
    )
)
# transformers' own tests skip, one by one, what does not concern a model: they decide.
THEIR_TESTS = "test_transformers_suite.py::"


def refuse_unknown(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure with the skip's reason, unless it is known."""
    if not report.skipped or hasattr(report, "wasxfail") or THEIR_TESTS in report.nodeid:
        return
    _, _, reason = report.longrepr
    if not KNOWN.search(reason):
        report.outcome = "failed"
        report.longrepr = (
            f"{reason}\nVIT_COMER_REQUIRE_ALL is set: nothing may be skipped for want of something. If this skip is "
            f"meant, list it in {__file__}"
        )


if os.environ.get("VIT_COMER_REQUIRE_ALL"):

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport() -> Iterator[None]:
        report = yield
        refuse_unknown(report)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report() -> Iterator[None]:
        report = yield
        refuse_unknown(report)
        return report
