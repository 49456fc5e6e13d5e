"""Memory that is freed in the context stays with the process until the context ends, and then goes back."""

import os
import subprocess
import sys

import pytest

from lifelong import allocator

BEGIN, END = {-4: 0, -1: -1}, {-4: 65_536, -3: 2**25, -1: 2**26}
PROGRAM = """
import numpy, resource, sys
from lifelong.allocator import freed_memory_kept

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 2**20

def use():
    numpy.ones(2**25 + 2**22)

before = resident()
use()
print(resident() - before)
with freed_memory_kept():
    with freed_memory_kept():
        use()
    print(resident() - before)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
print(resident() - before)
use()
print(resident() - before)
"""


@pytest.fixture
def calls(monkeypatch):
    """What is set, instead of setting it."""
    made = []
    monkeypatch.setattr(allocator._keeping, "_set", made.append)
    return made


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(allocator._keeping._library, "mallopt"), reason="only glibc has the settings"
)
def test_freed_memory_stays_until_the_outermost_context_ends():
    shown = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    outside, inside, faults, after, later = map(int, shown.split())
    # The array has 288 MiB: the system's count of resident pages is not exact to the last one.
    assert inside >= 256 > 32 > max(outside, after, later)
    assert faults < 2**28 // 4096 // 100


def test_contexts_within_each_other_share_the_setting(calls):
    with allocator.freed_memory_kept():
        with allocator.freed_memory_kept():
            pass
        assert calls == [BEGIN]
    assert calls == [BEGIN, END]


def test_the_setting_ends_with_an_error(calls):
    with pytest.raises(ZeroDivisionError), allocator.freed_memory_kept():
        raise ZeroDivisionError
    assert calls == [BEGIN, END]


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", None])
def test_an_allocator_that_the_environment_sets_up_is_left_alone(monkeypatch, name):
    class Library:
        made = 0

        def mallopt(self, parameter, value):
            Library.made += 1

        def malloc_trim(self, pad):
            Library.made += 1

    for other in [other for other in os.environ if other.startswith(("MALLOC_", "GLIBC_TUNABLES"))]:
        monkeypatch.delenv(other)
    if name is not None:
        monkeypatch.setenv(name, "1000000")
    monkeypatch.setattr(allocator._keeping, "_library", Library())
    with allocator.freed_memory_kept():
        pass
    assert Library.made == (6 if name is None else 0)


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator._keeping, "_library", object())
    with allocator.freed_memory_kept():
        pass
