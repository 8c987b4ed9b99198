"""Answers requests in a process of its own, as a server that was started again; run by test_overfit.py.

    python infer_in_new_process.py '{"app": ..., "studies": ..., "conf": {...}, "requests": [...]}' OUTPUT

Writes the paths of the answers' label files into OUTPUT (JSON).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from monailabel.utils.others.class_utils import get_class_of_subclass_from_file

arguments = json.loads(sys.argv[1])
found = get_class_of_subclass_from_file("main", f"{arguments['app']}/main.py", "MONAILabelApp")
app = found(app_dir=arguments["app"], studies=arguments["studies"], conf=arguments["conf"])
Path(sys.argv[2]).write_text(json.dumps([app.infer(request)["file"] for request in arguments["requests"]]))
