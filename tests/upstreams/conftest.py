"""What pytest must know before it imports the suites of this room."""

import pytest

pytest.register_assert_rewrite("tests.upstreams.contract", "tests.upstreams.calls")
