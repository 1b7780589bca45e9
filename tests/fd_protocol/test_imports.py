"""What a supervisor needs of the protocol costs no numpy: it must start fast and stay small."""

import subprocess
import sys

NUMPY_FREE = "cbor codec documents errors identity layout manifest messages parts public_set reference schema terms"


def test_the_supervisors_half_of_the_protocol_imports_no_numpy():
    program = f"""
import sys
for name in "{NUMPY_FREE} topics".split():
    __import__("fd_protocol." + name)
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
