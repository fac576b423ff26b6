import json

from semaphone.link.report import LinkReport, Quantiles, latency, quantiles, versions


def test_quantiles():
    assert quantiles([0.001 * i for i in range(101)]) == Quantiles(50.0, 99.0)
    assert quantiles([]) == Quantiles(0.0, 0.0)


def test_parts_add_up():
    found = latency(0.16, 0.02, {"encoder": [0.001, 0.003], "decoder": [0.002, 0.002]})
    assert found["context"] == Quantiles(160.0, 160.0)
    assert found["total"].p50 == 184.0


def test_the_report_is_json():
    report = LinkReport("nano", "ab", "fixed", "split", "none", "hold", 1, 2.0, 1.0, 2.0, 3.0, 4, 0, 0, 0.0, 0.0,
                        {"total": Quantiles(1.0, 2.0)}, 0.1, versions())  # fmt: skip
    back = json.loads(json.dumps(report.to_json()))
    assert back["latency_ms"]["total"] == {"p50": 1.0, "p99": 2.0}
    assert "torch" in back["versions"]
