"""Tests of the cases of the rate search benchmark."""

from benchmarks.cases import CASES, COMPARED, FAULT_CASES, whole_product


def test_cases_cover_every_kind_of_server() -> None:
    for case in CASES:
        assert 20 <= case.law.capacity_rps <= 2000, case.name
        assert case.law.batch <= case.law.queue <= 10_000 or case.law.batch == 1, case.name
        assert case.law.mean_s(case.law.batch) <= 0.5, case.name
    assert {case.law.batch for case in CASES} == {1, 8, 64}
    assert {case.arrivals for case in CASES} == {"constant", "poisson"}
    names = [case.name for case in (*CASES, *FAULT_CASES, *whole_product())]
    assert len(set(names)) == len(names)
    assert set(COMPARED) <= set(names)
