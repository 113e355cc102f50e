"""A TorchServe handler that answers with what it got. A JSON body can ask for something else, see `Echo._one`."""

import json
import os
import sys
import time


class Echo:
    def __init__(self):
        self.context = None

    def initialize(self, context):
        self.context = context
        refusal = os.environ.get("ECHO_REFUSAL")
        if refusal:
            print(refusal, flush=True)
            sys.exit(1)
        if os.environ.get("ECHO_BROKEN"):
            import no_such_module_anywhere  # noqa: F401

    def handle(self, rows, context):
        self.context = context
        return [self._one(index, row) for index, row in enumerate(rows)]

    def _one(self, index, row):
        body = bytes(row.get("body") or row.get("data") or b"")
        wish = json.loads(body) if body.startswith(b'{"wish"') else {}
        time.sleep(wish.get("sleep", 0))
        if "die_once" in wish and not os.path.exists(wish["die_once"]):
            open(wish["die_once"], "w").close()
            os._exit(1)
        if wish.get("raise"):
            raise ValueError("as wished")
        self.context.set_response_status(wish.get("status", 200), "Wished", index)
        self.context.set_response_content_type(index, "application/json")
        if "status" in wish:
            return json.dumps({"code": wish["status"], "type": "Wished", "message": "from the handler"})
        headers = {name.lower(): value for name, value in self.context.get_all_request_header(index).items()}
        return json.dumps(
            {
                "keys": sorted(row),
                "headers": {name: value for name, value in headers.items() if isinstance(value, str)},
                "length": len(body),
                "padding": "x" * wish.get("answer_bytes", 0),
            }
        )
