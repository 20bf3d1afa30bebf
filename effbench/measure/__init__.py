"""How each number is made. MEASURE_VERSION is raised by hand whenever a change here moves numbers: it makes records stale."""

MEASURE_VERSION = 1
