"""python -m testing.aot: what it says of compiled code. .ci/run compiles; here the code is made up."""

import dataclasses

import pytest

from testing import aot

CASE = aot.Case(aot.prox1d(), (256, 32), {"prox1d": 1}, temporary=0.5)
CALL = 'y = (f32[256,32]{1,0}, u8[256,8]{1,0}) custom-call(x, w), custom_call_target="jaxtv_prox1d"'


@pytest.mark.parametrize(
    ("hlo", "temporary", "expected"),
    [
        (CALL, 16_384, []),
        ("y = f32[256,32]{1,0} fusion(x)", 0, [r"calls {} in place of {'prox1d': 1}"]),
        (f"{CALL}\n{CALL}", 0, [r"calls {'prox1d': 2} in place of {'prox1d': 1}"]),
        (
            f"{CALL}\nz = f32[256,32]{{0,1}} copy(y)",
            0,
            ["1 copies: ['z = f32[256,32]{0,1} copy(y)']"],
        ),
        (f"{CALL}\nz = f32[256,32]{{1,0}} all-gather(y)", 0, ["collectives: ['all-gather']"]),
        (f"{CALL}\nz = all-reduce-start(y)", 0, ["collectives: ['all-reduce']"]),
        (f"{CALL}\nz = pred[] all-reduce(y)", 0, ["collectives: ['all-reduce']"]),
        (CALL, 100_000, ["100000 bytes of temporaries, 3.05 arrays"]),
    ],
)
def test_problems_are_named(hlo, temporary, expected):
    assert aot.problems(CASE, hlo, temporary) == expected


def test_a_loop_over_a_sharded_batch_may_reduce_a_flag():
    case = dataclasses.replace(CASE, flags=1)
    assert aot.problems(case, f"{CALL}\nz = pred[] all-reduce(y)", 0) == []
    assert aot.problems(case, f"{CALL}\nz = f32[] all-reduce(y)", 0) != []


def test_without_the_plugin_nothing_is_compiled(monkeypatch, capsys):
    monkeypatch.setattr(aot.importlib.metadata, "entry_points", lambda group: [])
    monkeypatch.setitem(aot._native.REGISTERED, "cuda", ())
    with pytest.raises(SystemExit) as stop:
        aot.main()
    assert stop.value.code == 2
    assert "jax-cuda13-plugin==" in capsys.readouterr().err
