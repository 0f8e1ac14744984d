"""How the two peers on LitServe are served: the same settings, requests and answers, whatever the model."""

import base64
from typing import Annotated

from litserve import LitAPI, LitServer
from pydantic import BaseModel, Field

from benchmarks.serving.peers.prepared import LARGEST, options

MAX_BATCH = 16  # requests, where nothing else is asked for
BATCH_TIMEOUT_S = 0.01  # LitServe's wait for a batch to fill; 0 would make the idle worker ask for requests in a loop


class PictureRequest(BaseModel):
    """What a request carries as JSON: an encoded picture in base64, and the number of members."""

    image_bytes: str
    ensemble_size: Annotated[int, Field(ge=1, le=LARGEST)]

    @property
    def picture(self) -> bytes:
        """The encoded picture."""
        return base64.b64decode(self.image_bytes)


def serve(api: type[LitAPI], description: str | None) -> None:
    """Serve until told to stop: one worker, since its passes use all cores, and one process that speaks HTTP."""
    parser = options(description)
    parser.add_argument("--batch", type=int, default=MAX_BATCH, help="requests, at most")
    chosen = parser.parse_args()
    server = LitServer(
        api(max_batch_size=chosen.batch, batch_timeout=BATCH_TIMEOUT_S), accelerator="cpu", fast_queue=True, timeout=120
    )
    server.run(host="127.0.0.1", port=chosen.port, log_level="warning", access_log=False, generate_client_file=False)
