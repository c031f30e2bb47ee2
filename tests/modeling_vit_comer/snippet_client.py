"""Somebody who has transformers and timm, but not our package, and runs what stands on cards.

Takes the packages that cannot be imported from the command line; then, as long as there is one, a line with a JSON
string of Python from stdin, and writes a JSON string with what that printed to stdout.
"""

import io
import json
import sys
from contextlib import redirect_stdout

from remote_code_client import hide


if __name__ == "__main__":
    hide(sys.argv[1:])
    for line in sys.stdin:
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(json.loads(line), {"__name__": "__main__"})
        print(json.dumps(printed.getvalue()), flush=True)
