"""Serve a saved model over HTTP, with the standard library and nothing of training.

    python examples/serve_http.py cartpole.zip --port 8000
    curl localhost:8000/health
    curl localhost:8000/predict -d '{"observation": [0.0, 0.1, 0.0, -0.1]}'

One observation gives its action and Q-values, a batch gives lists of both. Put a proxy with
encryption and limits on the rate in front of it before strangers may call.
"""

import argparse
import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn

from sbdqn import load_policy
from sbdqn.errors import SbdqnError

MOST_BYTES = 1_000_000  # of a request


class Handler(BaseHTTPRequestHandler):
    """Answers in JSON; each request has a thread of its own."""

    policy: Any
    timeout = 10.0  # seconds that a client may keep its thread waiting

    def do_GET(self) -> None:
        if self.path != "/health":
            self.answer(HTTPStatus.NOT_FOUND, {"error": "there are GET /health and POST /predict"})
            return
        spaces = {"observation": self.policy.observation_space, "action": self.policy.action_space}
        self.answer(
            HTTPStatus.OK, {"status": "ok", **{name: str(each) for name, each in spaces.items()}}
        )

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/predict":
            self.answer(HTTPStatus.NOT_FOUND, {"error": "there are GET /health and POST /predict"})
        elif not length.isdecimal():
            self.answer(HTTPStatus.LENGTH_REQUIRED, {"error": "Content-Length must be a number"})
        elif len(length) > 9 or int(length) > MOST_BYTES:
            error = f"a request may have at most {MOST_BYTES} bytes"
            self.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": error})
        else:
            self.answer_prediction(self.rfile.read(int(length)))

    def answer_prediction(self, body: bytes) -> None:
        try:
            request = json.loads(body, parse_constant=refuse)
            if not isinstance(request, dict) or request.keys() != {"observation"}:
                raise ValueError('the request must be {"observation": ...}')
            action, _ = self.policy.predict(request["observation"])
            q = self.policy.q_values(request["observation"])
            answer = json.dumps(
                {"action": action.tolist(), "q_values": q.tolist()}, allow_nan=False
            )
        except (ValueError, RecursionError) as error:  # sbdqn's SpaceError is a ValueError
            self.answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        else:
            self.send(HTTPStatus.OK, answer)

    def answer(self, status: HTTPStatus, content: dict[str, str]) -> None:
        self.send(status, json.dumps(content))

    def send(self, status: HTTPStatus, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode("ascii"))


def refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="what `sbdqn train` or DQN.save wrote")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 for one that is free")
    options = parser.parse_args()
    try:
        Handler.policy = load_policy(options.model, device="cpu")
    except SbdqnError as error:  # such as a file that is not there
        parser.error(str(error))
    with ThreadingHTTPServer((options.host, options.port), Handler) as server:
        print(f"Serving {options.model} on http://{options.host}:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("Stopped")


if __name__ == "__main__":
    main()
