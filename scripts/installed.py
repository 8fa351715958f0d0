"""Print, as JSON, where each installed duende-* came from; null: from an index."""

import importlib.metadata
import json

found = {}
for distribution in importlib.metadata.distributions():
    name = distribution.metadata["Name"].lower().replace("_", "-")
    if name.startswith("duende-"):
        # PEP 610: written for a path, a URL and an editable install, not for an index.
        origin = distribution.read_text("direct_url.json")
        found[name] = None if origin is None else json.loads(origin)["url"]
print(json.dumps(found))
